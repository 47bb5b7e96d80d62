"""The torture without a fault."""


def test_without_a_fault_nothing_is_lost_or_wrong(torture, total):
    rows = torture("control")

    assert total(rows, "survived") == total(rows, "tried") > 0
    assert [total(rows, name) for name in ("wrong_bytes", "lost_flushed", "leaks")] == [0, 0, 0]
