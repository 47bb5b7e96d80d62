"""Which machine this is, and which software: what a measured profile is good for.

No host name, no user name: a profile may be published. Processor, usable cores, memory and GPUs
decide the figures of a profile, so a machine is named by them.

Source: /proc/cpuinfo and /proc/driver/nvidia, see proc(5); both are read because the alternative,
asking torch, takes seconds.
"""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

PACKAGES = ("kvtier", "torch")


def machine_name() -> str:
    """Processor, usable cores, memory, GPUs."""
    info = _read(Path("/proc/cpuinfo"))
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [model[1].strip() if model else platform.machine(), f"{cores} cores", f"{gib:.0f} GiB"]
    return ", ".join([*parts, *_gpus()])


def _gpus() -> list[str]:
    folder = Path("/proc/driver/nvidia/gpus")
    files = sorted(folder.glob("*/information")) if folder.is_dir() else []
    found = (re.search(r"^Model:\s*(.+)$", _read(file), re.MULTILINE) for file in files)
    return [match[1].strip() for match in found if match]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def versions() -> dict[str, str]:
    """Versions of what decides a profile; packages that are not installed are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
