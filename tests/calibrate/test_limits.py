"""The raw limits: plausible rates, the file really moved, nothing left behind."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvtier.calibrate.limits import (
    DiskSetting,
    RawDisk,
    best_memcpy,
    best_odirect_read,
    device_copy_once,
    memcpy_once,
    odirect_read,
    pinned_copy_once,
)
from kvtier.calibrate.threads import timed_threads
from kvtier.errors import MeasureError

SIZE = 4 << 20


def test_a_read_moves_every_byte_once_whatever_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[int, int]] = []
    preadv = os.preadv

    def spy(fd: int, buffers: list[memoryview], offset: int) -> int:
        reads.append((offset, len(buffers[0])))
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", spy)
    with RawDisk(tmp_path, SIZE + 1) as raw:
        rate = raw.read_once(DiskSetting(threads=3, block_bytes=3 << 18))

    assert rate > 0
    assert raw.num_bytes == SIZE + 4096
    ends = [0]
    for offset, length in sorted(reads):
        assert offset == ends[-1], "no gap and no overlap"
        ends.append(offset + length)
    assert ends[-1] == raw.num_bytes


def test_the_scratch_file_has_no_name_even_while_it_is_open(tmp_path: Path) -> None:
    with RawDisk(tmp_path, SIZE):
        assert list(tmp_path.iterdir()) == []


def test_calibrate_keeps_the_setting_with_the_best_median(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast, lucky = (DiskSetting(threads, 4096) for threads in (1, 2, 3))
    rates = {slow: [3.0, 3.0, 3.0], fast: [5.0, 5.0, 1.0], lucky: [2.0, 99.0, 2.0]}

    def read_once(_: RawDisk, setting: DiskSetting) -> float:
        return rates[setting].pop()

    monkeypatch.setattr(RawDisk, "read_once", read_once)
    with RawDisk(tmp_path, SIZE) as raw:
        best = raw.calibrate([slow, fast, lucky], runs=3)

    assert (best, raw.setting) == (5.0, fast)


def test_a_write_overwrites_and_is_timed(tmp_path: Path) -> None:
    with RawDisk(tmp_path, SIZE) as raw:
        assert raw.write_once() > 0


def refuse_direct_open(original: Callable[..., int]) -> Callable[..., int]:
    """``os.open`` on a file system without O_DIRECT."""

    def fake(path: str, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return original(path, flags, *args, **kwargs)

    return fake


def test_a_refused_o_direct_falls_back_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", refuse_direct_open(os.open))

    with RawDisk(tmp_path, SIZE) as raw:
        assert raw.method.startswith("buffered")
        assert raw.read_once() > 0
    assert list(tmp_path.iterdir()) == []


def test_o_direct_refused_at_the_first_write_falls_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev = os.pwritev
    refused: list[int] = []

    def fake(fd: int, buffers: list[memoryview], offset: int) -> int:
        if not refused:
            refused.append(offset)
            raise OSError(errno.EINVAL, "refused")
        return pwritev(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", fake)
    with RawDisk(tmp_path, SIZE) as raw:
        assert raw.method.startswith("buffered")
        assert raw._fd is not None
        assert not fcntl.fcntl(raw._fd, fcntl.F_GETFL) & os.O_DIRECT
        assert raw.read_once() > 0


def test_a_short_read_is_an_error_not_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", lambda *_: 4096)

    with RawDisk(tmp_path, SIZE) as raw, pytest.raises(OSError, match="moved 4096 of"):
        raw.read_once()


def test_a_closed_disk_refuses_to_read(tmp_path: Path) -> None:
    with RawDisk(tmp_path, SIZE) as raw:
        pass

    with pytest.raises(ValueError, match="closed"):
        raw.read_once()


@pytest.mark.parametrize(("threads", "block_bytes"), [(0, 4096), (1, 0), (1, 5000)])
def test_an_impossible_setting_is_refused(threads: int, block_bytes: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        DiskSetting(threads, block_bytes)


def test_no_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RawDisk(tmp_path, 0)


def test_odirect_read_gives_a_rate_per_run(tmp_path: Path) -> None:
    rates = odirect_read(tmp_path, SIZE, block_bytes=1 << 20, threads=2, runs=3)

    assert len(rates) == 3
    assert all(rate > 1e6 for rate in rates)


def test_best_odirect_read_names_its_setting(tmp_path: Path) -> None:
    rate, setting = best_odirect_read(tmp_path, SIZE, runs=1)

    assert rate > 1e6
    assert isinstance(setting, DiskSetting)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_memcpy_rates_are_those_of_memory(threads: int) -> None:
    assert 1e8 < memcpy_once(SIZE, threads) < 1e12


def test_best_memcpy_names_its_threads() -> None:
    rate, threads = best_memcpy(SIZE, runs=1)

    assert rate > 1e8
    assert 1 <= threads <= (os.cpu_count() or 1)


def test_memcpy_refuses_no_threads() -> None:
    with pytest.raises(ValueError, match="got 0"):
        memcpy_once(SIZE, 0)


@pytest.mark.gpu
def test_cuda_copies_have_plausible_rates() -> None:
    size = 64 << 20

    to_device, to_host = pinned_copy_once(size, "h2d"), pinned_copy_once(size, "d2h")

    assert 1e8 < to_device < 1e12
    assert 1e8 < to_host < 1e12
    assert device_copy_once(size) > 1e9


def test_cuda_copies_say_that_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(MeasureError, match="no CUDA device"):
        pinned_copy_once(SIZE, "h2d")
    with pytest.raises(MeasureError, match="no CUDA device"):
        device_copy_once(SIZE)


def test_timed_threads_passes_on_what_a_job_raised() -> None:
    def fail() -> None:
        raise KeyError("job")

    with pytest.raises(KeyError, match="job"):
        timed_threads([fail, lambda: None])


def test_timed_threads_times_the_jobs_and_the_finish() -> None:
    done: list[str] = []

    elapsed_s = timed_threads([lambda: done.append("job")] * 2, lambda: done.append("finish"))

    assert done == ["job", "job", "finish"]
    assert 0 < elapsed_s < 1
