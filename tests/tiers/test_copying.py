"""Copies: every block of a batch is copied once and byte for byte, all before the caller goes on."""

import signal
import threading
import time

import pytest
import torch

from kvtier.tiers.copying import _PARALLEL_FROM_BYTES, Striper, copy_rows, touch, worthwhile

LARGE = _PARALLEL_FROM_BYTES


@pytest.fixture
def striper():
    striper = Striper("test", 3)
    yield striper
    striper.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("lanes", [1, 2, 3, 9])
def test_every_index_is_handed_out_once(striper, count, lanes):
    done = []

    striper.run(count, done.extend, lanes)

    assert sorted(done) == list(range(count))


@pytest.mark.parametrize(("count", "lanes"), [(1, 3), (9, 1), (0, 3)])
def test_one_lane_is_the_calling_thread(striper, count, lanes):
    threads = []

    striper.run(count, lambda _: threads.append(threading.current_thread()), lanes)

    assert threads == [threading.current_thread()]


@pytest.mark.parametrize(("num_bytes", "lanes"), [(LARGE - 1, 1), (LARGE, 4)])
def test_a_small_copy_is_not_worth_a_second_thread(num_bytes, lanes):
    assert worthwhile(num_bytes, 4) == lanes


def test_a_large_batch_runs_on_all_threads_at_once(striper):
    together = threading.Barrier(3, timeout=60)

    striper.run(9, lambda _: together.wait(), 3)


def test_the_calling_thread_is_one_of_the_lanes(striper):
    together, threads = threading.Barrier(3, timeout=60), []

    def work(_):
        together.wait()
        threads.append(threading.current_thread())

    striper.run(9, work, 3)

    assert threading.current_thread() in threads


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_any_lane_is_raised(striper, failing):
    together, here = threading.Barrier(2, timeout=60), threading.current_thread()

    def work(_):
        together.wait()
        if (threading.current_thread() is here) == bool(failing):
            raise ValueError("lane")

    with pytest.raises(ValueError, match="lane"):
        striper.run(2, work, 2)


def test_a_lane_that_is_held_up_leaves_the_rest_to_the_others(striper):
    done, others_done = [], threading.Event()

    def work(indices):
        for i in indices:
            if i == 0:
                assert others_done.wait(60)
            done.append(i)
            if len(done) == 8:
                others_done.set()

    striper.run(9, work, 3)

    assert sorted(done) == list(range(9))
    assert done[-1] == 0


def test_the_first_lanes_error_is_raised_after_every_lane_has_ended(striper):
    ended = []

    def work(indices):
        if next(indices) == 0:
            raise ValueError("index 0")
        time.sleep(0.05)
        ended.append(1)

    with pytest.raises(ValueError, match="index 0"):
        striper.run(3, work, 3)

    assert len(ended) == 2


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where a shell started the tests in the background and had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_after_an_interrupt_no_lane_is_running_and_no_index_is_handed_out():
    striper, began, ended = Striper("test", 3), [], []

    def work(indices):
        for i in indices:
            began.append(i)
            if i == 0:
                signal.raise_signal(signal.SIGINT)
            time.sleep(0.1)
            ended.append(i)

    with pytest.raises(KeyboardInterrupt):
        striper.run(100, work, 3)
    at_once = sorted(ended)
    striper.close()

    assert at_once == sorted(began)
    assert len(began) < 100


def test_close_ends_the_threads():
    striper = Striper("ending", 2)
    striper.run(2, lambda _: None, 2)

    striper.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kvtier-ending")]


@pytest.mark.parametrize("rows", [16, (LARGE >> 10) // 2])
def test_strided_blocks_are_copied_both_ways(striper, rows):
    pool = torch.randint(0, 256, (5, rows * 1024), dtype=torch.uint8)
    wide = torch.zeros(rows, 2, 1024, dtype=torch.uint8)
    views, back = [wide[:, 0], wide[:, 1]], torch.zeros_like(pool)

    copy_rows(striper, pool.numpy(), [3, 1], views, out=True)
    copy_rows(striper, back.numpy(), [0, 4], views, out=False)

    assert torch.equal(views[0], pool[3].view(rows, 1024))
    assert torch.equal(back[[0, 4]], pool[[3, 1]])


def test_a_range_of_layers_leaves_the_others_as_they_were(striper):
    pool = torch.randint(1, 256, (2, 12), dtype=torch.uint8)
    block = torch.zeros(4, 3, dtype=torch.uint8)

    copy_rows(striper, pool.numpy(), [1], [block], out=True, layers=slice(1, 3))

    assert torch.equal(block[1:3], pool[1].view(4, 3)[1:3])
    assert not block[[0, 3]].any()


def test_touching_a_pool_writes_all_of_it():
    pool = torch.full((3, 5), 7, dtype=torch.uint8)

    touch(pool)

    assert not pool.any()


def test_a_batch_that_meets_close_is_done_by_its_caller():
    striper, done = Striper("late", 3), []
    striper.close()

    striper.run(5, done.extend, 3)

    assert done == [0, 1, 2, 3, 4]
