"""Pictures that a command draws, with a library that is an extra."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvtier.commands.files import made_whole, new_file
from kvtier.errors import ConfigError

_ENDINGS = (".png", ".svg", ".pdf")


def add_plot(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--plot``."""
    parser.add_argument("--plot", type=_target, metavar="FILE", help=f"also draw it there ({', '.join(_ENDINGS)})")


def _target(text: str) -> Path:
    path = new_file(text)
    if path.suffix not in _ENDINGS:
        raise argparse.ArgumentTypeError(f"{text!r} must end in {' or '.join(_ENDINGS)}")
    return path


def check_plot(target: Path | None) -> None:
    """Find out before the work whether something can be drawn.

    Raises:
        ConfigError: The library is not here.
    """
    if target is not None and find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: pip install 'kvtier[plot]'")


def draw(target: Path, panels: int, paint: Callable[[Any], None]) -> None:
    """Make a figure with some panels side by side, and save it.

    Args:
        target: The file to make.
        panels: How many.
        paint: Draws on the panels, a list of matplotlib's ``Axes``.

    Raises:
        ConfigError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * panels, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    paint(list(figure.subplots(1, panels, squeeze=False)[0]))
    with made_whole(target) as place:
        figure.savefig(place, format=target.suffix[1:], dpi=130)
