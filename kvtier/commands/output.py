"""What a command says: a table for people on standard output, JSON for programs where ``--json`` says.

With ``--json -`` standard output carries the JSON alone, and the table goes to standard error.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvtier.errors import ConfigError


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--json``."""
    parser.add_argument("--json", type=_target, metavar="FILE", help="also write the result there as JSON; - is stdout")


def add_plot(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--plot``."""
    parser.add_argument("--plot", type=_picture, metavar="FILE", help="also draw the result there, as PNG")


def _picture(text: str) -> str:
    if text == "-":
        raise argparse.ArgumentTypeError("a picture goes to a file, not to standard output")
    return _target(text)


def _target(text: str) -> str:
    """A place that can be written to, as far as can be said before there is anything to write."""
    if text != "-" and (Path(text).is_dir() or not Path(text).absolute().parent.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in a directory that exists")
    return text


def say(text: str, target: str | None) -> None:
    """Print what people read.

    Args:
        text: Lines.
        target: The command's ``--json``.
    """
    print(text, file=sys.stderr if target == "-" else sys.stdout)


def write_json(result: Mapping[str, Any], target: str | None) -> None:
    """Write a result where ``--json`` says, if it was given.

    Raises:
        ConfigError: The file cannot be written.
    """
    if target is None:
        return
    text = json.dumps(result, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text)
    except OSError as exc:
        raise ConfigError(f"--json: {target!r} cannot be written: {exc.strerror}") from exc


def write_figure(figure: Any, target: Path) -> None:
    """Write a matplotlib figure as PNG, whole or not at all.

    Raises:
        ConfigError: The file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    try:
        target.write_bytes(picture.getvalue())
    except OSError as exc:
        raise ConfigError(f"--plot: {str(target)!r} cannot be written: {exc.strerror}") from exc


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be, the first two spaces apart from the next.

    Example:
        >>> print(table(("mode", "blocks"), [("cold", "0"), ("device", "12")]))
        mode    blocks
        cold    0
        device  12
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))
    return "\n".join(lines)
