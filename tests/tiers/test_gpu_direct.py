"""The direct way into GPU memory: exact bytes or none, and never the last word on damage.

On the CPU a stand-in for kvikio reads the real data file, and CPU tensors stand in for device memory; the
rest is the code that runs on a GPU. The tests marked ``gpu`` take the real library and a real device.
"""

import importlib.util
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import store_helpers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import NAMESPACE, TOKENS, blank, counters, keys, save, settle, tokens, wrong_blocks
from tier_helpers import BLOCK, disk, payload, place_of, put, raw_flip

from kvtier.errors import ConfigError, CorruptBlockError, TierUnavailableError
from kvtier.format import PAGE_BYTES
from kvtier.opening import open_store
from kvtier.reader import _How
from kvtier.streaming import Arrivals
from kvtier.testing.blocks import chain
from kvtier.tiers import gpu_direct
from kvtier.tiers.gpu_direct import file_system, on_nvme, open_file
from kvtier.tiers.records import Records
from kvtier.tiers.slabs import Slabs

AUTO = {"gpu_direct": "auto"}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_kvikio = pytest.mark.skipif(importlib.util.find_spec("kvikio") is None, reason="kvikio is not installed")


class FakeFuture:
    """What ``CuFile.pread`` returns; may be asked once, as the real one."""

    def __init__(self, fake, future):
        self._fake, self._future = fake, future

    def get(self):
        future, self._future = self._future, None
        try:
            return future.result(60)
        finally:
            self._fake.under_way -= 1


class FakeKvikio:
    """The part of kvikio that is used, over a real file and CPU tensors; its reads can go wrong."""

    def __init__(self):
        self.compat_preferred, self.gds_available, self.allow_compat = False, True, False
        self.mode, self.mode_at_open, self.opened, self.closed = "AUTO", [], [], 0
        self.places, self.under_way = [], 0
        self.spoil = lambda number, row, length: length
        """Called with the number of a read, its row and its length once it is done; returns the length to report."""
        self.pool = ThreadPoolExecutor(4)
        self._lock = threading.Lock()

    def modules(self):
        kvikio, defaults, driver = map(ModuleType, ("kvikio", "kvikio.defaults", "kvikio.cufile_driver"))
        kvikio.__version__, kvikio.CompatMode, kvikio.CuFile = "0.fake", SimpleNamespace(OFF="OFF"), self.open
        defaults.is_compat_mode_preferred = lambda: self.compat_preferred
        defaults.get = {"num_threads": 4}.__getitem__
        defaults.set = self.set
        driver.get = lambda name: {"is_gds_available": self.gds_available, "allow_compat_mode": self.allow_compat}[name]
        return {module.__name__: module for module in (kvikio, defaults, driver)}

    @contextmanager
    def set(self, name, value):
        assert name == "compat_mode"
        before, self.mode = self.mode, value
        try:
            yield
        finally:
            self.mode = before

    def open(self, path, flags):
        self.mode_at_open.append(self.mode)
        self.opened.append((path, flags))
        self._file = os.open(path, os.O_RDONLY)
        return self

    def close(self):
        self.closed += 1
        os.close(self._file)

    def pread(self, buf, size=None, file_offset=0, task_size=None):
        assert buf.is_contiguous()
        assert size == buf.numel()
        assert buf.data_ptr() % PAGE_BYTES == size % PAGE_BYTES == file_offset % PAGE_BYTES == 0
        with self._lock:
            number = len(self.places)
            self.places.append(file_offset)
            if self.spoil == "refused":
                raise RuntimeError("refused")
            self.under_way += 1
        return FakeFuture(self, self.pool.submit(self._read, number, buf.numpy(), file_offset))

    def _read(self, number, row, offset):
        return self.spoil(number, row, os.preadv(self._file, [row.data], offset))


@pytest.fixture
def fake(monkeypatch):
    """A machine that seems to have everything, with the CPU in the part of the GPU."""
    fake = FakeKvikio()
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_direct, "file_system", lambda _: "xfs")
    monkeypatch.setattr(gpu_direct, "on_nvme", lambda _: True)
    monkeypatch.setattr(gpu_direct, "_DEVICE", "cpu")
    monkeypatch.setattr(Slabs, "direct", property(lambda _: True))  # where the tests run it need not be
    yield fake
    fake.pool.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "nvme"


@pytest.fixture
def host_reads(monkeypatch):
    """Offsets of records that were read through host memory."""
    seen, read = [], Records.read

    def watch(records, places, *args):
        seen.extend(places)
        return read(records, places, *args)

    monkeypatch.setattr(Records, "read", watch)
    return seen


def windows_of(monkeypatch, records):
    monkeypatch.setattr(gpu_direct, "WINDOW_BYTES", records * (BLOCK + PAGE_BYTES))


def blanks(count, *, strided=False):
    """Buffers of one block each; strided ones are views between others' bytes, as a model's cache gives them."""
    if strided:
        return list(torch.zeros(4, count, BLOCK // 4, dtype=torch.uint8).unbind(1))
    return [torch.zeros(BLOCK, dtype=torch.uint8) for _ in range(count)]


def is_exact(out, numbers):
    return [torch.equal(block.reshape(-1), payload(number)) for block, number in zip(out, numbers, strict=True)]


def fetch(tier, *numbers):
    """Read blocks; every byte of those delivered is right."""
    part, out = chain(*numbers), blanks(len(numbers))
    count = tier.read(part.keys, out, part.labels)
    assert all(is_exact(out[:count], numbers[:count]))
    return count


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# The direct way


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 9),
    held=st.integers(0, 9),
    window=st.integers(1, 5),
    strided=st.booleans(),
    labelled=st.booleans(),
    number=st.integers(0, 1 << 20),
)
def test_blocks_arrive_straight_from_the_file_bit_for_bit(
    fake, tmp_path, monkeypatch, host_reads, count, held, window, strided, labelled, number
):
    windows_of(monkeypatch, window)
    with closing(disk(tmp_path / f"{number}-{len(fake.opened)}", 9, **AUTO)) as tier:
        put(tier, *range(held))
        part, out = chain(*range(count)), blanks(count, strided=strided)
        before = len(fake.places)
        host_reads.clear()
        found = tier.read(part.keys, out, part.labels if labelled else None)

        assert found == min(count, held)
        assert all(is_exact(out[:found], range(found)))
        assert fake.places[before:] == [place_of(tier, key) for key in part.keys[:found]]
        assert (sum(map(bool, host_reads)), fake.under_way) == (0, 0)


def test_the_next_window_is_on_its_way_while_one_is_checked(fake, path, monkeypatch):
    windows_of(monkeypatch, 2)
    asked, check = [], Records.check

    def watch(*args):
        asked.append(len(fake.places))
        check(*args)

    monkeypatch.setattr(Records, "check", watch)
    with closing(disk(path, **AUTO)) as tier:
        put(tier, *range(6))
        fetch(tier, *range(6))

    assert asked == [4, 4, 6, 6, 6, 6]


@pytest.mark.parametrize("at", [0, 8, 16, 50, 100, PAGE_BYTES, PAGE_BYTES + BLOCK - 1])
def test_damage_on_the_drive_ends_the_run_there(fake, path, monkeypatch, caplog, at):
    windows_of(monkeypatch, 2)
    with closing(disk(path, **AUTO)) as tier:
        part, out = put(tier, *range(7)), blanks(7)
        raw_flip(tier, part.keys[3], at)

        with pytest.raises(CorruptBlockError, match=part.keys[3].hex()[:12]):
            tier.read(part.keys, out, part.labels)

        assert all(is_exact(out[:3], range(3)))
        assert not any(block.any() for block in out[3:]), "nothing that is not proven is copied out"
        assert tier.reaches(out), "the drive is to blame, not the way"
        assert fake.under_way == 0
        assert fetch(tier, 4, 5, 6) == 3
    assert warnings_in(caplog) == []


def test_two_damaged_blocks_of_a_window_end_the_run_at_the_first(fake, path):
    with closing(disk(path, **AUTO)) as tier:
        part, out = put(tier, *range(5)), blanks(5)
        for number in (3, 1):
            raw_flip(tier, part.keys[number], -1)

        with pytest.raises(CorruptBlockError) as caught:
            tier.read(part.keys, out, part.labels)

        assert (caught.value.key, is_exact(out[:1], [0])) == (part.keys[1], [True])
        places = [place_of(tier, key) for key in part.keys]
        assert list(tier._gpu.read(places, part.keys, out, part.labels)) == [1]


def test_another_prompts_block_is_not_served(fake, path):
    with closing(disk(path, **AUTO)) as tier:
        part = put(tier, 1)

        with pytest.raises(CorruptBlockError, match="token ids"):
            tier.read(part.keys, blanks(1), chain(2).labels)


def short(number, row, length):
    return length - PAGE_BYTES if number == 2 else length


def failing(number, row, length):
    if number == 2:
        raise RuntimeError("cuFile error: 5010")
    return length


def spoilt(number, row, length):
    row[-PAGE_BYTES - 1] ^= number == 2
    return length


@pytest.mark.parametrize("spoil", [short, failing, spoilt, "refused"])
@pytest.mark.parametrize("window", [1, 3, 8])
def test_what_goes_wrong_on_the_way_is_read_through_host_memory_and_the_way_is_left(
    fake, path, monkeypatch, caplog, spoil, window
):
    windows_of(monkeypatch, window)
    fake.spoil = spoil
    with closing(disk(path, **AUTO)) as tier:
        part = put(tier, *range(8))

        assert fetch(tier, *range(8)) == 8
        assert not tier.reaches(blanks(1))
        assert len(warnings_in(caplog)) == 1
        assert part.keys[0 if spoil == "refused" else 2].hex()[:12] in warnings_in(caplog)[0]

        asked = len(fake.places)
        assert fetch(tier, *range(8)) == 8, "who was told that it reaches still gets the blocks"
        assert (len(fake.places), len(warnings_in(caplog)), fake.under_way) == (asked, 1, 0)


def test_a_block_that_is_wrong_on_the_way_does_not_hide_one_that_is_damaged(fake, path):
    fake.spoil = spoilt
    with closing(disk(path, **AUTO)) as tier:
        part, out = put(tier, *range(5)), blanks(5)
        raw_flip(tier, part.keys[3], -1)

        with pytest.raises(CorruptBlockError, match=part.keys[3].hex()[:12]):
            tier.read(part.keys, out, part.labels)

        assert all(is_exact(out[:3], range(3)))
        assert not tier.reaches(out)


def test_a_device_without_room_is_served_through_host_memory(fake, path, monkeypatch, caplog):
    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with closing(disk(path, **AUTO)) as tier:
        put(tier, 1, 2)
        with monkeypatch.context() as patch:
            patch.setattr(gpu_direct.torch, "empty", full)
            assert fetch(tier, 1, 2) == 2

        assert fake.places == []
        assert "no room" in caplog.text
        assert not tier.reaches(blanks(1))


def test_a_device_that_fails_is_unavailable_and_nothing_is_left_under_way(fake, path, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    windows_of(monkeypatch, 1)
    monkeypatch.setattr(gpu_direct, "copy_across", broken)
    with closing(disk(path, **AUTO)) as tier:
        part = put(tier, 1, 2, 3)

        with pytest.raises(TierUnavailableError, match="nvme: copy failed: CUDA error"):
            tier.read(part.keys, blanks(3), part.labels)

        assert (len(fake.places), fake.under_way) == (2, 0)


def test_many_readers_share_the_scratch(fake, path, monkeypatch):
    windows_of(monkeypatch, 2)
    with closing(disk(path, 16, **AUTO)) as tier, ThreadPoolExecutor(4) as pool:
        put(tier, *range(16))
        prompts = [range(first, first + 5) for first in range(12)] * 3

        assert list(pool.map(lambda numbers: fetch(tier, *numbers), prompts)) == [5] * len(prompts)
        assert tier.reaches(blanks(1))


@pytest.mark.parametrize(
    ("devices", "reached"), [(["meta", "meta"], True), (["cpu", "cpu"], False), (["cpu", "meta"], False), ([], False)]
)
def test_buffers_on_one_device_are_reached_and_no_others(fake, path, monkeypatch, devices, reached):
    monkeypatch.setattr(gpu_direct, "_DEVICE", "meta")
    with closing(disk(path, **AUTO)) as tier:
        assert tier.reaches([torch.empty(BLOCK, dtype=torch.uint8, device=device) for device in devices]) is reached
        put(tier, 1)
        assert (fetch(tier, 1), fake.places) == (1, [])


def test_the_file_is_closed_with_the_tier_and_not_by_a_forked_child(fake, path, monkeypatch):
    tier = disk(path, **AUTO)
    with monkeypatch.context() as patch:
        patch.setattr(gpu_direct.os, "getpid", lambda: -1)
        tier._gpu.close()
    assert fake.closed == 0

    tier.close()

    assert fake.closed == 1


# What a machine offers


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ({}, None),
        ({"cuda": False}, "no CUDA device"),
        ({"file_system": "overlay"}, "is on overlay, GPUDirect Storage needs one of ext4, xfs"),
        ({"nvme": False}, "not on an NVMe drive"),
        ({"kvikio": None}, "pip install 'kvtier[gds]'"),
        ({"compat_preferred": True}, "KVIKIO_COMPAT_MODE"),
        ({"gds_available": False}, "nvidia-fs is not loaded"),
        ({"open": OSError("cuFile error: 5027")}, "kvikio failed: OSError: cuFile error: 5027"),
        ({"compat_preferred": property}, None),
    ],
)
def test_what_is_missing_is_said_once_and_blocks_are_read_all_the_same(
    fake, path, monkeypatch, caplog, lacking, reason
):
    for name, value in lacking.items():
        if name == "cuda":
            monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        elif name == "file_system":
            monkeypatch.setattr(gpu_direct, "file_system", lambda _: "overlay")
        elif name == "nvme":
            monkeypatch.setattr(gpu_direct, "on_nvme", lambda _: False)
        elif name == "kvikio":
            monkeypatch.setitem(sys.modules, "kvikio", None)
        elif name == "open":
            monkeypatch.setattr(sys.modules["kvikio"], "CuFile", raising(value))
        elif value is property:
            monkeypatch.setattr(sys.modules["kvikio.defaults"], "is_compat_mode_preferred", raising(RuntimeError("x")))
            reason = "kvikio failed: RuntimeError: x"
        else:
            setattr(fake, name, value)

    with caplog.at_level(logging.INFO, "kvtier"), closing(disk(path, **AUTO)) as tier:
        put(tier, 1, 2)
        assert [fetch(tier, 1, 2), fetch(tier, 1)] == [2, 1]
        assert tier.reaches(blanks(1)) is (reason is None)

    (line,) = caplog.messages
    expected = "straight from the file" if reason is None else "by way of host memory"
    assert line.startswith(f"nvme: reads into GPU memory go {expected}")
    assert bool(fake.places) is (reason is None)
    assert (reason or "kvikio 0.fake, 4 reads at a time") in line


def raising(error):
    def call(*args, **options):
        raise error

    return call


def test_a_machine_without_a_gpu_says_so_and_raises_nothing(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this one has a GPU")

    assert open_file(tmp_path / "no such file") == (None, "torch sees no CUDA device")


def test_a_file_that_is_not_there_is_a_reason_as_well(fake, tmp_path):
    file, why = open_file(tmp_path / "no such file")

    assert file is None
    assert why.startswith("kvikio failed: FileNotFoundError")


def test_the_file_is_opened_so_that_kvikio_cannot_quietly_take_another_way(fake, path):
    with closing(disk(path, **AUTO)):
        assert (fake.mode_at_open, fake.mode) == (["OFF"], "AUTO")
        assert fake.opened == [(path / "data.mdb", "r")]


def test_the_log_says_that_cufile_may_take_another_way(fake, path, caplog):
    fake.allow_compat = True
    with caplog.at_level(logging.INFO, "kvtier"), closing(disk(path, **AUTO)):
        assert "cuFile may go through host memory itself" in caplog.text


def test_it_is_off_unless_asked_for(fake, path, caplog):
    with caplog.at_level(logging.INFO, "kvtier"), closing(disk(path)) as tier:
        put(tier, 1)

        assert (fetch(tier, 1), fake.opened, tier.reaches(blanks(1))) == (1, [], False)
    assert caplog.messages == ["nvme: reads into GPU memory go by way of host memory: gpu_direct is 'off'"]


def test_a_tier_that_reads_through_the_page_cache_does_not_read_around_it(fake, path, monkeypatch, caplog):
    monkeypatch.setattr(Slabs, "direct", property(lambda _: False))
    with caplog.at_level(logging.INFO, "kvtier"), closing(disk(path, page_cache="keep", **AUTO)):
        assert fake.opened == []
    assert "page cache" in caplog.text


def test_a_setting_that_is_none_is_refused(path):
    with pytest.raises(ConfigError, match="gpu_direct must be 'off' or 'auto', got 'on'"):
        disk(path, gpu_direct="on")


def test_the_file_system_is_named_as_the_kernel_does():
    assert file_system(Path("/proc/self/status")) == "proc"


def test_a_file_system_that_is_not_mounted_here_is_unknown(monkeypatch):
    monkeypatch.setattr(gpu_direct.os, "major", lambda _: 4095)

    assert file_system(Path("/proc/self/status")) == "an unknown file system"


@pytest.mark.parametrize(
    ("drive", "found"), [("nvme0n1p1", True), ("nvme1n1", True), ("dm-0", False), ("sda1", False), (None, False)]
)
def test_a_drive_is_recognised_by_its_name(tmp_path, monkeypatch, drive, found):
    device = tmp_path.stat().st_dev
    if drive is not None:
        (tmp_path / drive).mkdir()
        (tmp_path / f"{os.major(device)}:{os.minor(device)}").symlink_to(tmp_path / drive)
    monkeypatch.setattr(gpu_direct, "_BLOCK_DEVICES", tmp_path)

    assert on_nvme(tmp_path) is found


# In a store


def store_of(path, **options):
    return open_store(path, NAMESPACE, device=0, host=0, disk=8 * store_helpers.BLOCK, put_patience_s=10.0, **options)


def test_a_store_gets_blocks_the_direct_way_and_counts_damage(fake, path):
    with store_of(path, **AUTO) as store:
        save(store, "abcde")
        settle(store)
        out = blank(5)
        hit = store.get(tokens("abcde"), out)

        assert (hit.num_tokens, wrong_blocks(store, "abcde", hit, out)) == (5 * TOKENS, [])
        assert len(fake.places) == 5

        (disk_tier,) = store.tiers
        raw_flip_last(disk_tier, keys(store, "abc")[-1])
        hit = store.get(tokens("abcde"), out)

        assert (hit.num_tokens, hit.stopped_by, wrong_blocks(store, "abcde", hit, out)) == (2 * TOKENS, "damaged", [])
        assert counters(store)["damaged_blocks"] == 1


def raw_flip_last(tier, key):
    with tier._volume.env.data.open("r+b") as file:
        file.seek(place_of(tier, key) + PAGE_BYTES + tier.block_bytes - 1)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([last ^ 1]))


@pytest.mark.parametrize("options", [{"disk_format": "int8"}, {"disk": 0, "host": "1 MiB"}])
def test_it_is_refused_where_there_is_no_disk_of_raw_blocks(path, options):
    sizes = {"device": 0, "host": 0, "disk": "1 MiB", **options}
    with pytest.raises(ConfigError, match="gpu_direct='auto' is for a disk tier of raw blocks"):
        open_store(path, NAMESPACE, **sizes, **AUTO)


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize(
    ("reaches", "device", "way"),
    [(True, "meta", "whole"), (False, "meta", "via host"), (True, "cpu", None), (False, "cpu", None)],
)
def test_the_reader_asks_a_tier_whether_it_reaches_the_buffers(fake, path, layered, reaches, device, way):
    how = _How(Arrivals([slice(0, 1)]) if layered else None, beside=False)
    with closing(disk(path, **AUTO)) as tier:
        tier.reaches = lambda _: reaches

        expected = way or ("layers" if layered else "whole")
        assert how.way(tier, [torch.empty(BLOCK, dtype=torch.uint8, device=device)]) == expected


def test_a_tier_that_cannot_reach_devices_is_read_via_host():
    cpu_only = SimpleNamespace(any_device=False)

    assert _How(None, beside=False).way(cpu_only, [torch.empty(1, device="meta")]) == "via host"


# On a GPU


@pytest.fixture
def through_kvikio(monkeypatch):
    """The real library in its compatibility mode, which takes any file system: all but the drive's own transfer."""
    import kvikio
    import kvikio.defaults

    monkeypatch.setattr(Slabs, "direct", property(lambda _: True))
    monkeypatch.setattr(gpu_direct, "open_file", lambda data: (kvikio.CuFile(data, "r"), "compatibility mode"))
    with kvikio.defaults.set("compat_mode", kvikio.CompatMode.ON):
        yield


def cuda_blanks(count, *, strided):
    return [block.cuda() for block in blanks(count)] if not strided else [*cuda_cache(count).unbind(1)]


def cuda_cache(count):
    return torch.zeros(4, count, BLOCK // 4, dtype=torch.uint8, device="cuda")


@pytest.mark.gpu
@needs_cuda
@needs_kvikio
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("window", [1, 3, 16])
def test_on_a_gpu_blocks_arrive_bit_for_bit(through_kvikio, path, monkeypatch, host_reads, window, strided):
    windows_of(monkeypatch, window)
    with closing(disk(path, **AUTO)) as tier:
        part, out = put(tier, *range(8)), cuda_blanks(8, strided=strided)

        for _ in range(3):
            for block in out:
                block.zero_()  # queued before the read, so it must not land after it
            assert tier.read(part.keys, out, part.labels) == 8
            assert all(is_exact([block.cpu() for block in out], range(8)))
        assert tier.reaches(out)
        assert not host_reads


@pytest.mark.gpu
@needs_cuda
@needs_kvikio
def test_on_a_gpu_damage_ends_the_run(through_kvikio, path):
    with closing(disk(path, **AUTO)) as tier:
        part, out = put(tier, *range(8)), cuda_blanks(8, strided=True)
        raw_flip(tier, part.keys[5], PAGE_BYTES + 7)

        with pytest.raises(CorruptBlockError, match=part.keys[5].hex()[:12]):
            tier.read(part.keys, out, part.labels)

        assert all(is_exact([block.cpu() for block in out[:5]], range(5)))


@pytest.mark.gpu
@needs_cuda
@needs_kvikio
def test_on_a_gpu_a_store_takes_the_direct_way_for_gpu_buffers_only(through_kvikio, path, host_reads):
    with store_of(path, **AUTO) as store:
        save(store, "abcde")
        settle(store)
        for device in ("cuda", "cpu"):
            host_reads.clear()
            out = [block.to(device) for block in blank(5)]
            hit = store.get(tokens("abcde"), out)

            assert hit.num_tokens == 5 * TOKENS
            assert wrong_blocks(store, "abcde", hit, [block.cpu() for block in out]) == []
            assert bool(host_reads) is (device == "cpu")


@pytest.mark.gpu
@needs_cuda
@needs_kvikio
def test_on_a_gpu_with_gpudirect_storage_nothing_goes_through_host_memory(path, host_reads, caplog):
    with caplog.at_level(logging.INFO, "kvtier"), closing(disk(path, **AUTO)) as tier:
        if not tier.reaches(cuda_blanks(1, strided=False)):
            pytest.skip(caplog.messages[-1])
        part, out = put(tier, *range(8)), cuda_blanks(8, strided=True)

        assert tier.read(part.keys, out, part.labels) == 8
        assert all(is_exact([block.cpu() for block in out], range(8)))
        assert tier.reaches(out)
        assert not host_reads
