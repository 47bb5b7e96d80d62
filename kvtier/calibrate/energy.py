"""Power of the machine while it computes, where something can be asked.

    processor   energy counters of RAPL packages in /sys/class/powercap      joules over a time
    GPU         NVML's power reading, through torch                          watts at moments

Neither sees the whole machine: no fans, no supply, no drives, and RAPL's packages no memory. Most
machines let only root read RAPL, and most virtual ones have none; then there is no figure, and a reason.

Source: Documentation/power/powercap/powercap.rst of the kernel; torch.cuda.power_draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kvtier.calibrate.bands import measured, median_band
from kvtier.econ.figures import Figure

_MICRO = 1e-6


class Meter(Protocol):
    """Says how much power something takes."""

    what: str
    """What the figure covers."""

    def during(self, work: Callable[[], object]) -> float:
        """Watts while ``work`` runs."""
        ...


class PackageEnergy:
    """Watts of the processor's packages, from their energy counters, which wrap around.

    Args:
        place: Where the counters are.
        clock: In seconds.

    Raises:
        OSError: There are none, or they may not be read.
    """

    what = "RAPL, processor packages alone"

    def __init__(
        self, place: Path = Path("/sys/class/powercap"), clock: Callable[[], float] = time.perf_counter
    ) -> None:
        zones = [zone for zone in sorted(place.glob("*:*")) if _word(zone / "name").startswith("package")]
        if not zones:
            raise FileNotFoundError("this machine has no RAPL counters")
        self._counters = [(zone / "energy_uj", int(_word(zone / "max_energy_range_uj"))) for zone in zones]
        self._clock = clock
        self._read()

    def during(self, work: Callable[[], object]) -> float:
        """See ``Meter.during``; wrong if a counter wraps twice meanwhile, which takes minutes."""
        before, began = self._read(), self._clock()
        work()
        seconds, after = self._clock() - began, self._read()
        ranges = [most + 1 for _, most in self._counters]
        used = [(new - old) % size for new, old, size in zip(after, before, ranges, strict=True)]
        return sum(used) * _MICRO / seconds

    def _read(self) -> list[int]:
        return [int(_word(path)) for path, _ in self._counters]


class GpuPower:
    """Watts of the current CUDA device, as NVML has them right after the work.

    Raises:
        OSError: NVML cannot be asked.
    """

    what = "NVML, GPU alone"

    def __init__(self) -> None:
        try:
            self._read()
        except Exception as exc:  # NVML's own errors, whose library need not be there
            raise OSError(f"NVML cannot be asked: {exc}") from exc

    def during(self, work: Callable[[], object]) -> float:
        """See ``Meter.during``."""
        work()
        return self._read()

    def _read(self) -> float:
        import torch

        return float(torch.cuda.power_draw()) / 1e3


def _word(path: Path) -> str:
    return path.read_text().strip()


def power_figure(watts: Sequence[float], what: str) -> Figure:
    """The figure of some readings."""
    return measured(median_band(watts), "W", f"kvtier calibrate during prefill: {what}")
