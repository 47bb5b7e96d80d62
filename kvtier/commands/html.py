"""A report as one HTML file that needs nothing else: no script, style, font or picture from anywhere.

    page("Sweep of a trace", [section("Hit rates", [figures([...]), table(head, rows)]), ...])

Whatever is plain text is escaped where it enters, and only what these functions made is markup (``Markup``), so that
the name of a trace cannot become part of the page. The page's own security policy forbids it to load anything.
Colours follow the reader's setting, light or dark; pictures are inline SVG in the colours of the text.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from kvtier.commands.files import made_whole


_LONG = 60
"""Characters of a cell beyond which it is broken into lines."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


class Cell(NamedTuple):
    """A number in a table: what is shown, and what it is sorted by."""

    text: str
    value: float


def escaped(text: str) -> Markup:
    """Text as HTML; markup as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def paragraph(text: str) -> Markup:
    """One paragraph."""
    return Markup(f"<p>{escaped(text)}</p>")


def lead(text: str) -> Markup:
    """The paragraph that says it all."""
    return Markup(f'<p class="lead">{escaped(text)}</p>')


def tiles(pairs: Mapping[str, str]) -> Markup:
    """The few numbers that matter, large: what each is, and its value."""
    inside = (
        f"<div><strong>{escaped(value)}</strong><span>{escaped(name)}</span></div>" for name, value in pairs.items()
    )
    return Markup(f'<div class="tiles">{"".join(inside)}</div>')


def listing(lines: Iterable[str]) -> Markup:
    """Lines with a dot before each."""
    return Markup(f"<ul>{''.join(f'<li>{escaped(line)}</li>' for line in lines)}</ul>")


def code(text: str) -> Markup:
    """Lines as they were typed."""
    return Markup(f"<pre><code>{escaped(text)}</code></pre>")


def facts(pairs: Mapping[str, str]) -> Markup:
    """Names and what they are."""
    return Markup(
        f"<dl>{''.join(f'<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>' for name, text in pairs.items())}</dl>"
    )


def section(title: str, parts: Iterable[Markup]) -> Markup:
    """A heading and what stands under it."""
    return Markup(f"<section><h2>{escaped(title)}</h2>{''.join(parts)}</section>")


def figures(pictures: Iterable[tuple[Markup, str]]) -> Markup:
    """Pictures with their captions, side by side where there is room."""
    inside = (f"<figure>{picture}<figcaption>{escaped(caption)}</figcaption></figure>" for picture, caption in pictures)
    return Markup(f'<div class="figures">{"".join(inside)}</div>')


def table(head: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> Markup:
    """A table that a click on a head sorts. Wider than the page, it scrolls by itself."""
    heads = "".join(f'<th scope="col"><button>{escaped(text)}</button></th>' for text in head)
    lines = (f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return Markup(
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell):
        return f'<td class="number" data-value="{cell.value!r}">{escaped(cell.text)}</td>'
    prose = ' class="prose"' if len(cell) > _LONG else ""
    return f"<td{prose}>{escaped(cell)}</td>"


def page(title: str, parts: Iterable[Markup]) -> str:
    """The whole file."""
    inside = {
        name: resources.files("kvtier.commands").joinpath(f"report.{name}").read_text("utf-8") for name in ("css", "js")
    }
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title>\n<style>\n{inside['css']}</style>\n</head>\n<body>\n<h1>{escaped(title)}</h1>",
            *parts,
            f"<script>\n{inside['js']}</script>\n</body>\n</html>\n",
        )
    )


def write_page(target: Path, text: str) -> None:
    """Make the file, whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    with made_whole(target) as place:
        place.write_text(text, encoding="utf-8")
