"""Copies: stripes cover a batch once, end before the caller goes on, and find every byte of a strided block."""

import signal
import threading
import time

import pytest
import torch

from kvtier.tiers.copying import _PARALLEL_FROM_BYTES, Striper, _words, copy_blocks, shaped, touch

LARGE = _PARALLEL_FROM_BYTES


@pytest.fixture
def striper():
    striper = Striper("test", 3)
    yield striper
    striper.close()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("batch_bytes", [LARGE - 1, LARGE])
def test_stripes_cover_the_batch_once(striper, count, batch_bytes):
    done = []

    striper.run(count, batch_bytes, done.extend)

    assert sorted(done) == list(range(count))


@pytest.mark.parametrize(("count", "batch_bytes"), [(1, LARGE), (9, LARGE - 1), (0, 0)])
def test_a_small_batch_stays_on_the_calling_thread(striper, count, batch_bytes):
    threads = []

    striper.run(count, batch_bytes, lambda _: threads.append(threading.current_thread()))

    assert threads == [threading.current_thread()]


def test_a_large_batch_runs_on_all_threads_at_once(striper):
    together = threading.Barrier(3, timeout=60)

    striper.run(9, LARGE, lambda _: together.wait())


def test_the_first_stripes_error_is_raised_after_every_stripe_has_ended(striper):
    ended = []

    def work(indices):
        if indices[0] == 0:
            raise ValueError("stripe 0")
        time.sleep(0.05)
        ended.append(indices[0])

    with pytest.raises(ValueError, match="stripe 0"):
        striper.run(3, LARGE, work)

    assert sorted(ended) == [1, 2]


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where a shell started the tests in the background and had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_after_an_interrupt_no_stripe_is_running_and_none_begins():
    striper, began, ended = Striper("test", 3), [], []

    def work(indices):
        began.append(indices[0])
        if indices[0] == 0:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        ended.append(indices[0])

    with pytest.raises(KeyboardInterrupt):
        striper.run(3, LARGE, work)
    at_once = sorted(ended)
    striper.close()

    assert at_once == sorted(began)


def test_close_ends_the_threads():
    striper = Striper("ending", 2)
    striper.run(2, LARGE, lambda _: None)

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
