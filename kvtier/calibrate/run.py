"""One calibration: prefill, tiers, write amplification, power, prices, and the profile of all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvtier.calibrate.amplification import device_counter, measure_amplification, process_counter
from kvtier.calibrate.bands import today
from kvtier.calibrate.energy import GpuPower, Meter, PackageEnergy, power_figure
from kvtier.calibrate.prefill import measure_prefill, prefill_points
from kvtier.calibrate.prices import Priced
from kvtier.calibrate.settings import Settings, check_room
from kvtier.calibrate.subject import Subject, benches
from kvtier.calibrate.tiers import ColdDisk, TierSamples, measure_tiers
from kvtier.econ.figures import Figure
from kvtier.econ.machine import machine_name, versions
from kvtier.econ.profile import Profile, TierProfile
from kvtier.errors import ConfigError, MeasureError, TierError
from kvtier.hashing import Chain

#: Blocks that a commit of the write amplification's store holds, and how many batches it gets.
_TURN_BLOCKS = 16
_TURNS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A profile and what it does not hold."""

    profile: Profile
    samples: Mapping[str, TierSamples]
    notes: Sequence[str]
    """What a reader must know: what was left out, and why."""


@dataclass(slots=True)
class _Notes:
    say: Callable[[str], None]
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.lines.append(line)
        self.say(line)


def calibrate(
    subject: Subject,
    priced: Priced,
    settings: Settings,
    directory: Path,
    *,
    say: Callable[[str], None],
    progress: bool = True,
) -> Calibration:
    """Measure this machine with a model.

    Args:
        subject: The model.
        priced: What the machine costs.
        settings: How long, and what.
        directory: An empty one on the disk to be measured; what is made in it is the caller's to remove.
        say: Told what is being done.
        progress: See ``stats.interleave``.

    Raises:
        ConfigError: The directory has not enough room, or cannot be used.
    """
    block_bytes = subject.spec.block_bytes
    check_room(directory, settings.needed_bytes(block_bytes) + 3 * _TURN_BLOCKS * block_bytes)
    notes = _Notes(say)
    load = os.getloadavg()[0]
    source = f"kvtier calibrate, {settings.runs} runs, load average {load:.1f} on {len(os.sched_getaffinity(0))} cores"
    if load > 0.5 * len(os.sched_getaffinity(0)):
        notes.add(f"the machine is busy with other work (load average {load:.1f}): figures are worse than it can do")
    say(f"prefill of {subject.label}, {subject.dtype} on {subject.device}")
    prefill, power = _prefill(subject, settings, notes, progress=progress)
    count = settings.batch(block_bytes)
    say(f"tiers, in batches of {count} blocks of {block_bytes:,} bytes")
    with _usable(directory):
        with benches(subject, directory, count) as found:
            samples = measure_tiers(
                found, subject.names(count), runs=settings.runs, settle=subject.settle, progress=progress
            )
        say("write amplification of the disk tier")
        amplification = _amplification(subject, directory, source)
    tiers = {
        name: TierProfile(
            medium=_medium(name, priced),
            write_amplification=amplification if name == "disk" else _memory(),
            **tier.figures(f"{source}, batches of {count} blocks"),
            **priced.terms(name),
        )
        for name, tier in samples.items()
    }
    profile = Profile(
        name=f"{subject.label} in {subject.dtype} here",
        source=source,
        date=today(),
        machine=machine_name(),
        versions=versions(),
        model=subject.label,
        kv_dtype=subject.spec.dtype,
        bytes_per_token=subject.spec.block_bytes // subject.spec.block_tokens,
        prefill=prefill_points(prefill),
        pass_s=prefill_points(prefill)[0].mid,
        gpu_usd_per_hour=priced.machine,
        power_w=power,
        tiers=tiers,
        inputs=_inputs(settings, count, block_bytes),
    )
    return Calibration(profile=profile, samples=samples, notes=notes.lines)


def _inputs(settings: Settings, count: int, block_bytes: int) -> dict[str, Figure]:
    values = {
        "runs": (settings.runs, "runs"),
        "batch_blocks": (count, "blocks"),
        "block_bytes": (block_bytes, "bytes"),
    }
    return {
        name: Figure(value=float(value), unit=unit, source="kvtier calibrate", date=today(), kind="given")
        for name, (value, unit) in values.items()
    }


def _memory() -> Figure:
    return Figure(value=1.0, unit="ratio", source="memory does not wear", date=today(), kind="given")


def _medium(tier: str, priced: Priced) -> str:
    return "GPU memory" if tier == "device" else priced.media[tier].name


@contextmanager
def _usable(directory: Path) -> Iterator[None]:
    """Say of what goes wrong in a directory that it is the directory's."""
    try:
        yield
    except (TierError, MeasureError, OSError) as exc:
        raise ConfigError(f"--directory: tiers cannot be measured in {str(directory.parent)!r}: {exc}") from exc


def _prefill(
    subject: Subject, settings: Settings, notes: _Notes, *, progress: bool
) -> tuple[dict[int, list[float]], Figure | None]:
    """Seconds by length, and power during the longest where it can be read."""
    meter, watts = _meter(subject, notes), dict[int, list[float]]()

    def compute(tokens: int) -> None:
        if meter is None:
            subject.compute(tokens)
        else:
            watts.setdefault(tokens, []).append(meter.during(lambda: subject.compute(tokens)))

    samples = measure_prefill(
        compute,
        settings.lengths,
        budget_s=settings.prefill_budget_s,
        runs=settings.runs,
        progress=progress,
    )
    if left := [n for n in settings.lengths if n not in samples]:
        notes.add(
            f"no time for prompts of {', '.join(f'{n:,}' for n in left)} tokens within the budget; beyond "
            f"{max(samples):,} tokens the profile goes on as its fit"
        )
    return samples, None if meter is None else power_figure(watts[max(samples)], meter.what)


def _meter(subject: Subject, notes: _Notes) -> Meter | None:
    try:
        return GpuPower() if subject.gpu is not None else PackageEnergy()
    except OSError as exc:
        notes.add(f"no energy: {exc.strerror or exc}")
        return None


def _amplification(subject: Subject, directory: Path, source: str) -> Figure:
    """A store of two batches is filled and turned over, in batches as the store's mover writes them."""
    blocks, kept = subject.buffers(_TURN_BLOCKS), list[Chain]()
    spec = subject.spec
    place = directory / "turned"
    with ColdDisk(place, 2 * _TURN_BLOCKS * spec.block_bytes, spec.block_bytes, spec.block_tokens) as disk:

        def turn() -> int:
            if len(kept) == 2:
                disk.tier.delete(kept.pop(0).keys)
            kept.append(subject.names(_TURN_BLOCKS, seed=turns.pop()))
            disk.tier.write(kept[-1].keys, blocks, kept[-1].labels)
            disk.tier.flush()
            return _TURN_BLOCKS * spec.block_bytes

        turns = list(range(_TURNS))
        how = f"{source}, a store filled and turned over in batches of {_TURN_BLOCKS} blocks"
        return measure_amplification(turn, _TURNS, process_counter(), device_counter(directory), how)
