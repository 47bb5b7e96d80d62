"""Copies: every block of a batch is copied once and byte for byte, all before the caller goes on."""

import signal
import threading
import time

import pytest
import torch

from kvtier.tiers.copying import _PARALLEL_FROM_BYTES, Striper, _words, copy_blocks, shaped, touch, worthwhile

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
    flat = torch.randint(0, 256, (2, rows * 1024), dtype=torch.uint8)
    wide = torch.zeros(rows, 2, 1024, dtype=torch.uint8)
    views, back = [wide[:, 0], wide[:, 1]], torch.zeros_like(flat)

    copy_blocks(striper, views, [shaped(block, view) for block, view in zip(flat, views, strict=True)])
    copy_blocks(striper, [shaped(block, view) for block, view in zip(back, views, strict=True)], views)

    assert torch.equal(views[0], flat[0].view(rows, 1024))
    assert torch.equal(back, flat)


def test_no_blocks_are_no_work(striper):
    copy_blocks(striper, [], [])


def test_a_block_in_the_shape_of_its_counterpart_is_the_same_memory():
    block = torch.arange(24, dtype=torch.uint8)

    assert shaped(block, torch.empty(2, 3, 4)).data_ptr() == block.data_ptr()


def test_a_block_of_the_right_shape_is_not_touched():
    block = torch.arange(24, dtype=torch.uint8)

    assert shaped(block, torch.empty(24)) is block


ALIGNED = torch.arange(64, dtype=torch.uint8)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(ALIGNED, id="flat"),
        pytest.param(torch.zeros(4, 3, 16, dtype=torch.uint8)[:, 1], id="rows apart"),
        pytest.param(ALIGNED[8:24], id="at a word"),
    ],
)
def test_a_block_whose_rows_are_words_is_copied_by_words(block):
    words = _words(block, block)

    assert [each.dtype for each in words] == [torch.int64, torch.int64]
    assert words[0].numel() * 8 == block.numel()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(ALIGNED[:63], id="not whole words"),
        pytest.param(ALIGNED[3:19], id="at an odd address"),
        pytest.param(torch.zeros(4, 12, dtype=torch.uint8)[:, :8], id="rows at odd addresses"),
        pytest.param(ALIGNED[::2], id="every other byte"),
        pytest.param(ALIGNED[0], id="a scalar"),
    ],
)
def test_a_block_whose_rows_are_not_words_is_copied_by_bytes_and_so_is_its_counterpart(block):
    words = _words(torch.zeros_like(block), block)

    assert [each.dtype for each in words] == [torch.uint8, torch.uint8]


def test_touching_a_pool_writes_all_of_it():
    pool = torch.full((3, 5), 7, dtype=torch.uint8)

    touch(pool)

    assert not pool.any()
