"""What the reload benchmark found, read from its JSON.

python benchmarks/reload_vs_prefill.py --json FILE
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvtier.errors import ConfigError

_BENCHMARK = "reload_vs_prefill"
_TEXTS = ("model", "cpu", "date_utc")
_NUMBERS = ("prompt_tokens", "p50_ms", "p99_ms")


def read_reload(path: Path) -> dict[str, Any]:
    """The benchmark's rows and what they hold for.

    Returns:
        ``model``, ``processor``, ``date``, ``kvtier``, ``bytes_per_token``; ``rows`` with ``path``, ``prompt_tokens``,
        ``p50_ms``, ``p99_ms``; ``break_even_tokens`` by path, None where recomputing wins throughout.

    Raises:
        ConfigError: The file cannot be read, or is none of that benchmark's.
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: not a readable result of the reload benchmark: {exc}") from exc
    if not isinstance(raw, Mapping) or raw.get("benchmark") != _BENCHMARK:
        raise ConfigError(f"{path}: not a result of the reload benchmark: expected JSON with benchmark {_BENCHMARK!r}")
    about, rows, crossings = (raw.get(name) for name in ("conditions", "rows", "break_even_tokens"))
    if not isinstance(about, Mapping) or not isinstance(crossings, Mapping) or not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: the result has no conditions, rows or break_even_tokens; run the benchmark again")
    if missing := [name for name in _TEXTS if not isinstance(about.get(name), str)]:
        raise ConfigError(f"{path}: conditions: expected text for {', '.join(missing)}")
    version = about.get("kvtier")
    if not isinstance(version, str | None):
        raise ConfigError(f"{path}: conditions: kvtier: expected its version or null, got {version!r}")
    gpu, size = about.get("gpu"), about.get("kv_bytes_per_token")
    return {
        "model": about["model"],
        "processor": gpu if isinstance(gpu, str) and about.get("device") != "cpu" else about["cpu"],
        "date": about["date_utc"][:10],
        "kvtier": version or "not installed",  # run from a checkout
        "bytes_per_token": size if isinstance(size, int) else None,
        "rows": [_row(row, f"{path}: rows[{place}]") for place, row in enumerate(rows)],
        "break_even_tokens": {
            str(name): None if value is None else _number(value, f"{path}: break_even_tokens: {name}")
            for name, value in crossings.items()
        },
    }


def _row(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("path"), str):
        raise ConfigError(f"{where}: expected an object with a path")
    return {"path": raw["path"], **{name: _number(raw.get(name), f"{where}: {name}") for name in _NUMBERS}}


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{where}: expected a number above 0, got {value!r}")
    return value
