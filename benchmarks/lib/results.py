"""Where a benchmark's report goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(report: dict[str, Any], target: str | None) -> None:
    """Write a report to a file, to standard output if the target is ``-``, or nowhere.

    Raises:
        OSError: The file cannot be written.
    """
    if target == "-":
        print(json.dumps(report))
    elif target:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(json.dumps(report, indent=1) + "\n")
        print(f"JSON: {target}")
