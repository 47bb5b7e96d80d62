"""Pictures that a command draws, with a library that is an extra."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvtier.commands.files import made_whole, new_file
from kvtier.commands.html import Markup
from kvtier.errors import ConfigError

_ENDINGS = (".png", ".svg", ".pdf")

_HEIGHT_IN = 4.2

INK = "#010203"
"""Stands for the colour of the text until a page that has one takes the picture."""


def add_plot(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--plot``."""
    parser.add_argument("--plot", type=_target, metavar="FILE", help=f"also draw it there ({', '.join(_ENDINGS)})")


def _target(text: str) -> Path:
    path = new_file(text)
    if path.suffix not in _ENDINGS:
        raise argparse.ArgumentTypeError(f"{text!r} must end in {' or '.join(_ENDINGS)}")
    return path


def check_plot(target: Path | None, option: str = "--plot") -> None:
    """Find out before the work whether something can be drawn.

    Raises:
        ConfigError: The library is not here.
    """
    if target is not None and find_spec("matplotlib") is None:
        raise ConfigError(f"{option} needs matplotlib: pip install 'kvtier[plot]'")


def draw(target: Path, panels: int, paint: Callable[[Any], None]) -> None:
    """Make a figure with some panels side by side, and save it.

    Args:
        target: The file to make.
        panels: How many.
        paint: Draws on the panels, a list of matplotlib's ``Axes``.

    Raises:
        ConfigError: The file cannot be written.
    """
    figure = _figure(panels, paint, _HEIGHT_IN)
    with made_whole(target) as place:
        figure.savefig(place, format=target.suffix[1:], dpi=130)


def _figure(panels: int, paint: Callable[[Any], None], height_in: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * panels, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    paint(list(figure.subplots(1, panels, squeeze=False)[0]))
    return figure


def inline_svg(name: str, paint: Callable[[Any], None], height_in: float = _HEIGHT_IN) -> Markup:
    """One panel for a page: its axes and text in the colour of the text around it, nothing behind it.

    Args:
        name: Of this picture on its page; pictures of different names share no ids.
        paint: See ``draw``.
        height_in: Of its drawing; the width is always the same, so that text has one size on a page.
    """
    from matplotlib import rc_context

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor")
    look: Any = {**dict.fromkeys(inked, INK), "svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
    with rc_context(look):
        file = io.StringIO()
        _figure(1, paint, height_in).savefig(file, format="svg", transparent=True)
    text = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    head, rest = text[text.index("<svg") :].split(">", 1)
    text = re.sub(r' (xmlns(:xlink)?|width|height)="[^"]*"', "", head) + ">" + rest
    return Markup(text.replace(INK, "currentColor"))
