"""Tiers beside their limits, on a clock that moves only when a tier works; and a disk that is cold indeed."""

import sys

import pytest
import torch

from kvtier.calibrate import tiers
from kvtier.calibrate.residency import resident_bytes
from kvtier.calibrate.tiers import Bench, ColdDisk, TierSamples, measure_tiers
from kvtier.errors import MeasureError, NotColdError
from kvtier.testing.blocks import BLOCK_TOKENS, chain, contents

BLOCK = contents(0).numel()
PART = chain(1, 2, 3, 4)
LATENCY_S = 0.5


class FakeTier:
    """Takes half a second and a second for each block; a write takes twice as long, a delete a quarter of a second."""

    def __init__(self):
        self.now = 0.0
        self.log = []
        self.lost = 0

    def clock(self):
        return self.now

    def read(self, keys, out, labels):
        self.log.append("read")
        self.now += LATENCY_S + len(keys)
        return len(keys) - self.lost

    def write(self, keys, blocks, labels):
        self.log.append("write")
        self.now += 2 * len(keys)

    def delete(self, keys):
        self.log.append("delete")
        self.now += 0.25

    def prepare(self):
        self.log.append("prepare")
        self.now += 1000  # not timed


def bench_of(tier):
    blocks = [torch.zeros(8, dtype=torch.uint8)] * len(PART)
    return Bench(
        name="disk",
        tier=lambda: tier,
        prepare=tier.prepare,
        blocks=blocks,
        out=blocks,
        raw_read=lambda: 16.0,
        raw_write=lambda: 8.0,
    )


def measured(tier, runs=5, settle=lambda: None):
    return measure_tiers([bench_of(tier)], PART, runs=runs, settle=settle, clock=tier.clock, progress=False)["disk"]


def test_a_read_and_a_write_take_what_the_tier_takes_without_the_preparation():
    samples = measured(FakeTier())

    assert samples.read_s == [LATENCY_S + 4] * 5
    assert samples.small_s == [LATENCY_S + 1] * 5
    assert samples.write_s == [0.25 + 8] * 5
    assert (samples.raw_read, samples.raw_write) == ([16.0] * 5, [8.0] * 5)


def test_every_read_is_prepared_and_every_write_replaces():
    tier = FakeTier()
    measured(tier)

    assert [tier.log[i - 1] for i, word in enumerate(tier.log) if word == "read"] == ["prepare"] * 10
    assert [tier.log[i - 1] for i, word in enumerate(tier.log) if word == "write"] == ["delete"] * 5


def test_the_device_is_waited_for_within_the_time():
    tier = FakeTier()

    def settle():
        tier.now += 0.125  # before and after each

    samples = measured(tier, settle=settle)

    assert samples.read_s == [LATENCY_S + 4 + 0.125] * 5
    assert samples.write_s == [0.25 + 8 + 0.125] * 5


def test_a_tier_that_lost_a_block_is_not_measured():
    tier = FakeTier()
    tier.lost = 1

    with pytest.raises(MeasureError, match="disk: 3 of 4 blocks that were written can be read"):
        measured(tier)


SAMPLES = TierSamples(
    batch_bytes=400,
    block_bytes=100,
    read_s=[1.0, 2.0, 4.0],
    write_s=[4.0, 4.0, 8.0],
    small_s=[0.6, 1.0, 0.4],
    raw_read=[400.0, 800.0, 200.0],
    raw_write=[100.0, 200.0, 100.0],
)


def test_a_speed_has_the_band_of_its_runs():
    assert SAMPLES.speeds(SAMPLES.read_s) == (100.0, 200.0, 400.0)


def test_a_share_pairs_the_runs_of_one_round():
    assert SAMPLES.read_share == (0.25, 0.5, 1.0)
    assert SAMPLES.write_share == (0.5, 0.5, 1.0)


def test_latency_is_what_one_block_takes_beyond_its_bytes():
    assert SAMPLES.latency_s == pytest.approx((0.0, 0.1, 0.5))  # 100 bytes at 200 bytes/s are half a second


def test_the_figures_of_a_tier_have_units_bands_and_a_source():
    figures = SAMPLES.figures("a test")

    assert {name: (figure.value, figure.unit) for name, figure in figures.items()} == {
        "read_bytes_per_s": (200.0, "bytes/s"),
        "write_bytes_per_s": (100.0, "bytes/s"),
        "latency_s": (pytest.approx(0.1), "s"),
        "raw_read_bytes_per_s": (400.0, "bytes/s"),
        "raw_write_bytes_per_s": (100.0, "bytes/s"),
    }
    assert all(figure.source.startswith("a test") and figure.kind == "measured" for figure in figures.values())


# The disk


@pytest.fixture
def disk(tmp_path):
    from lib.machine import conditions

    if sys.platform != "linux" or conditions(tmp_path)["disk"]["filesystem"] not in {"ext4", "xfs", "btrfs"}:
        pytest.skip("this file system need not drop pages when asked")
    with ColdDisk(tmp_path / "tier", 8 * BLOCK, BLOCK, BLOCK_TOKENS) as disk:
        disk.tier.write(PART.keys, [contents(n) for n in (1, 2, 3, 4)], PART.labels)
        yield disk


def resident(disk):
    return sum(resident_bytes(path) for path in disk.directory.rglob("*") if path.is_file())


def test_a_chilled_disk_is_not_in_memory_and_has_its_blocks(disk):
    for path in disk.directory.rglob("*"):
        path.read_bytes()
    warm = resident(disk)

    disk.chill()

    assert resident(disk) < tiers.COLD_BYTES < warm
    out = [torch.zeros(BLOCK, dtype=torch.uint8)]
    assert disk.tier.read(PART.keys[:1], out, PART.labels[:1]) == 1
    assert torch.equal(out[0], contents(1))


def test_a_disk_that_stays_in_memory_is_not_measured(disk, monkeypatch):
    monkeypatch.setattr(tiers, "drop", lambda path: path.read_bytes())

    with pytest.raises(NotColdError, match="bytes of the tier's files are still in memory, at most"):
        disk.chill()
