"""The torture without a fault, and its command."""


def test_without_a_fault_nothing_is_lost_or_wrong(torture):
    rows, said = torture("control")

    (row,) = rows.values()
    assert row["tried"] == row["survived"] > 0, said
    assert (row["wrong_bytes"], row["lost_flushed"], row["leaks"]) == (0, 0, 0), said
