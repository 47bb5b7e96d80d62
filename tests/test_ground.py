"""Two sides share a prefix: whoever is faster, each unit is brought by one of them, and none is left out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.ground import Ground, Piece, meeting_s


def rate(per_unit, constant=0.0):
    return lambda start, stop: constant + per_unit * (stop - start)


def unknown(start, stop):
    return None


def play(ground, turns="", fails=None):
    """Both sides take turns as told, then as they can.

    A turn of the loading side claims a window or reports it; of the n-th window, ``fails[n]``
    leading units arrive. Returns who brought each unit.
    """
    brought = dict.fromkeys(range(ground.front), "there")
    window, number, waiting = None, 0, False
    turns = list(turns)
    while True:
        turn = turns.pop(0) if turns else "cl"[waiting]
        if turn == "l" and window is not None:
            good = min((fails or {}).get(number, ground.num_units), window[1] - window[0])
            ground.arrived(good)
            brought |= dict.fromkeys(range(window[0], window[0] + good), "loaded")
            window, waiting = None, False
        elif turn == "l":
            window, waiting = ground.next_window(), False
            number += 1
            assert window is None or all(unit not in brought for unit in range(*window)), "claimed by both"
        else:
            step = ground.next_piece()
            if step == "done":
                assert window is None, "the last window was not waited for"
                return brought
            waiting = step == "wait"
            if isinstance(step, Piece):
                claimed = range(step.start, step.stop)
                assert claimed
                assert all(unit in brought for unit in range(step.start)), "computed before its predecessors were there"
                assert all(unit not in brought for unit in claimed), "claimed by both"
                assert window is None or not set(claimed) & set(range(*window)), "claimed by both"
                brought |= dict.fromkeys(claimed, "computed")


sides = st.sampled_from([unknown, rate(0.0), rate(0.001), rate(0.01, 0.1), rate(1.0), rate(1.0, 5.0), rate(100.0)])


@settings(max_examples=400)
@given(
    st.integers(1, 40),
    sides,
    sides,
    st.lists(st.sampled_from("cl"), max_size=60),
    st.dictionaries(st.integers(1, 8), st.integers(0, 3), max_size=4),
    st.integers(0, 10),
    st.sampled_from([0.0, 0.05, 3.0]),
    st.booleans(),
)
def test_whoever_is_faster_every_unit_is_brought_by_one_side(count, compute, load, turns, fails, start, least, single):
    ground = Ground(count, compute, load, start=min(start, count), least_s=least, single=single)

    brought = play(ground, turns, fails)

    assert {unit for unit, how in brought.items() if how == "loaded"} == ground.loaded
    assert set(range(ground.front)) <= set(brought)
    assert not set(range(ground.front, count)) & set(brought), "what is in place was left behind"


@pytest.mark.parametrize("known", [unknown, rate(1.0)])
def test_while_nothing_is_known_of_a_side_pieces_are_the_smallest(known):
    ground = Ground(10, unknown, known)

    assert (ground.next_piece(), ground.next_window()) == (Piece(0, 1), (9, 10))


def test_equal_sides_meet_in_the_middle():
    ground = Ground(100, rate(1.0), rate(1.0))

    meeting_s(ground, rate(1.0), rate(1.0))

    assert 45 <= len(ground.loaded) <= 55


def test_a_side_that_would_gain_nothing_leaves_all_to_the_other_in_one_go():
    slow_compute = Ground(100, rate(50.0), rate(0.1))
    slow_load = Ground(100, rate(0.1), rate(50.0))

    assert (slow_compute.next_piece(), slow_compute.next_window()) == ("wait", (0, 100))
    assert slow_load.next_window() is None
    assert slow_load.next_piece() == "done"


def test_a_gain_too_small_is_no_gain():
    assert Ground(100, rate(50.0), rate(1.0), least_s=0.0).next_piece() == Piece(0, 1)
    assert Ground(100, rate(50.0), rate(1.0), least_s=2.0).next_piece() == "wait"


def test_a_piece_ends_before_both_meet_and_a_window_well_before():
    ground = Ground(200, rate(1.0), rate(1.0))

    assert ground.next_piece() == Piece(0, 80)
    assert ground.next_window() == (185, 200)


def test_in_chunks_one_is_computed_at_a_time():
    assert Ground(200, rate(1.0), rate(1.0), single=True).next_piece() == Piece(0, 1)


def test_a_window_under_way_is_waited_for():
    ground = Ground(2, unknown, unknown)

    steps = [ground.next_piece(), ground.next_window(), ground.next_piece()]
    ground.arrived(1)

    assert steps == [Piece(0, 1), (1, 2), "wait"]
    assert ground.next_window() is None
    assert (ground.next_piece(), ground.front) == ("done", 2)


def test_a_hole_is_computed_up_to_what_was_loaded_behind_it():
    ground = Ground(6, unknown, unknown)
    for count in (1, 0, 0, 1):
        ground.next_window()
        ground.arrived(count)
    ground.stop()

    steps = [ground.next_piece() for _ in range(3)]

    assert ground.loaded == {5, 2}
    assert steps == [Piece(0, 2), Piece(3, 5), "done"]
    assert ground.front == 6


def test_after_a_stop_there_are_no_more_windows():
    ground = Ground(3, unknown, unknown)
    ground.next_window()
    ground.stop()

    assert [ground.next_piece() for _ in range(3)] == [Piece(0, 1), Piece(1, 2), "wait"]
    ground.arrived(1)
    assert ground.next_window() is None
    assert ground.next_piece() == "done"


def test_given_up_a_window_is_not_waited_for():
    ground = Ground(6, unknown, unknown)
    ground.next_window()
    ground.give_up()

    assert (ground.next_piece(), ground.loaded) == ("done", set())


# Played through with predictions


@given(st.integers(1, 200), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0, 2), st.floats(0, 2))
def test_both_take_no_longer_than_either_alone_but_for_the_piece_they_are_at(count, compute, load, each, request):
    compute_s, load_s = rate(compute, each), rate(load, request)
    ground = Ground(count, compute_s, load_s)

    seconds = meeting_s(ground, compute_s, load_s) + (compute_s(ground.front, count) if ground.front < count else 0.0)

    best = count * compute * load / (compute + load)
    assert seconds >= 0.99 * min(best, compute_s(0, count), load_s(0, count))
    assert seconds <= 1.3 * min(compute_s(0, count), load_s(0, count)) + 8 * each + 12 * request + compute + load


def test_equal_sides_take_half_the_time():
    assert meeting_s(Ground(100, rate(1.0), rate(1.0)), rate(1.0), rate(1.0)) == pytest.approx(50, abs=3)


def test_a_side_of_which_nothing_is_known_is_played_through_all_the_same():
    assert meeting_s(Ground(10, unknown, rate(1.0)), unknown, rate(1.0)) >= 0
