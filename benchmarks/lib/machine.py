"""The conditions of a measurement, without which its numbers mean nothing.

Everything here may be published: no host name, no user name, no absolute path. A disk is
named by its kernel device (``nvme0n1``) and model, a file system by its type.

Source: /proc/cpuinfo, /proc/mounts, /sys/dev/block; see proc(5) and sysfs(5).
"""

import datetime as dt
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")
_PACKAGES = ("torch", "transformers", "lmdb", "numpy", "xxhash", "cryptography", "kvtier")


def conditions(directory: Path | None = None) -> dict[str, Any]:
    """Describe the machine, the software and the disk that a benchmark ran on.

    Args:
        directory: Where the store lies; None leaves the disk out.

    Returns:
        JSON-serialisable. What is absent or unknown is None, so the keys never change.
    """
    return {
        "date_utc": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        **_cpu(),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "git_commit": _git_commit(),
        **_torch(),
        "gpu_driver": _command("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "disk": None if directory is None else _disk(directory),
    }


def has_bfloat16() -> bool:
    """Whether this CPU says that it multiplies bfloat16 in hardware; False where it does not say."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu()["cpu_flags"])


def _cpu() -> dict[str, Any]:
    info = _read(Path("/proc/cpuinfo")) or ""
    fields = dict(re.findall(r"^(model name|flags)\s*:\s*(.+)$", info, re.MULTILINE))
    present = set(fields.get("flags", "").split())
    return {
        "cpu": fields.get("model name") or platform.machine(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "cpu_flags": [flag for flag in _CPU_FLAGS if flag in present],
    }


def _torch() -> dict[str, Any]:
    try:
        import torch  # conditions must work where torch is absent
    except ImportError:
        return {"torch_threads": None, "gpu": None, "gpu_memory_bytes": None, "cuda": None}
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu.name if gpu else None,
        "gpu_memory_bytes": gpu.total_memory if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
    }


def _disk(directory: Path) -> dict[str, str | None]:
    """File system type, kernel device and drive model under a directory.

    The device comes from the directory's device number, not from /proc/mounts: a mapper name
    or an NFS source often contains the host's name.
    """
    number = directory.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    device = node.resolve() if node.exists() else None
    model = None
    if device is not None:  # a partition has no model, the drive above it has
        model = _read(device / "device/model") or _read(device.parent / "device/model")
    return {
        "filesystem": _filesystem(directory, _read(Path("/proc/mounts")) or ""),
        "device": device.name if device else None,
        "model": model,
    }


def _filesystem(directory: Path, mounts: str) -> str | None:
    """The type of the innermost mount above a directory; of two on one point, the later."""
    target = directory.resolve()
    best: tuple[int, str | None] = (-1, None)
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split()
        mount = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point))
        if target.is_relative_to(mount) and len(mount.parts) >= best[0]:
            best = (len(mount.parts), kind)
    return best[1]


def _git_commit() -> str | None:
    """The commit of this checkout, marked when tracked files differ from it."""
    here = str(Path(__file__).parent)
    commit = _command("git", "-C", here, "rev-parse", "--short=12", "HEAD")
    changed = _command("git", "-C", here, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _command(*argv: str) -> str | None:
    """First line of what a program prints; None if it is absent, fails or prints nothing."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.strip().splitlines()), None)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
