"""A number with its unit, its origin and the day it was true.

    input = {value = 3.00, unit = "USD/Mtok", source = "price page", date = "2026-11", kind = "given"}

A price without a date is a rumour, and a bandwidth without a source is a hope: a figure that
lacks either is refused where it is read, and so is one in another unit than its field has, for a
price per month taken for one per hour is wrong by 730 and looks like a number.

Units are checked, never converted: a converter would need to know that a GB is not a GiB, and the
person who wrote the figure knows it better.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kvtier.errors import ConfigError

Kind = Literal["measured", "given", "assumed"]
"""Seen on a machine; printed by who sells it, or follows from that by arithmetic; neither."""

KINDS: tuple[str, ...] = get_args(Kind)

_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")
_REQUIRED = ("value", "unit", "source", "date", "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that a ledger may use."""

    value: float

    unit: str
    """As its field has it, such as ``USD/GB-h`` or ``bytes/s``; 1e9 bytes to the GB."""

    source: str
    """Where it can be looked up."""

    date: str
    """When it was true: year, month or day, as in ``2026-11``."""

    kind: Kind

    lo: float | None = None
    """Lower end of the band in which it was measured; None where nothing was."""

    hi: float | None = None
    """Upper end of that band."""

    @property
    def band(self) -> tuple[float, float, float]:
        """Lower end, value, upper end; three times the value where no band is known."""
        return (
            self.value if self.lo is None else self.lo,
            self.value,
            self.value if self.hi is None else self.hi,
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields that are set, as a file would hold them."""
        fields = {name: getattr(self, name) for name in (*_REQUIRED, "lo", "hi")}
        return {name: value for name, value in fields.items() if value is not None}


def read_figure(raw: object, where: str, unit: str, sources: Mapping[str, Any] | None = None) -> Figure:
    """A figure from a file, or the reason why it is none.

    Args:
        raw: ``{value, unit, source, date, kind}``, perhaps with ``lo`` and ``hi``; or with ``from``, the
            name of an entry of ``sources``, in place of what that entry has.
        where: File and field, for messages.
        unit: What the field is in.
        sources: ``{name: {source, date, kind}}``, so that one price list need not be cited forty times.

    Raises:
        ConfigError: It is no such table, a field is missing or unknown, the unit is another, the value is
            no number, negative, or zero where that makes no sense, or the value is outside its own band.

    Example:
        >>> raw = {"value": 2.5, "unit": "USD/h", "source": "a price page", "date": "2026-05", "kind": "given"}
        >>> read_figure(raw, "hardware.toml: gpu", "USD/h").value
        2.5
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: expected a figure with {', '.join(_REQUIRED)}, got {raw!r}")
    fields = _resolved(raw, where, sources or {})
    missing = [name for name in _REQUIRED if fields.get(name) is None or fields[name] == ""]
    if missing:
        raise ConfigError(f"{where}: has no {', '.join(missing)}; a figure is used only with its source and date")
    if unknown := sorted(set(fields) - {*_REQUIRED, "lo", "hi"}):
        raise ConfigError(f"{where}: {', '.join(unknown)} is not a field of a figure")
    if fields["unit"] != unit:
        raise ConfigError(
            f"{where}: unit {fields['unit']!r}, expected {unit!r}; convert the value, units are not mixed"
        )
    if fields["kind"] not in KINDS:
        raise ConfigError(f"{where}: kind {fields['kind']!r} is none of {', '.join(KINDS)}")
    if (
        not isinstance(fields["source"], str)
        or not isinstance(fields["date"], str)
        or not _DATE.fullmatch(fields["date"])
    ):
        raise ConfigError(
            f"{where}: source must be text and date like '2026-11' or '2026-11-30', got {fields['date']!r}"
        )
    numbers = {
        name: _number(fields[name], f"{where}: {name}", unit) for name in ("value", "lo", "hi") if name in fields
    }
    figure = Figure(unit=unit, source=fields["source"], date=fields["date"], kind=fields["kind"], **numbers)
    lo, value, hi = figure.band
    if not lo <= value <= hi:
        raise ConfigError(f"{where}: {value} is outside its own band from {lo} to {hi}")
    return figure


def _resolved(raw: Mapping[str, Any], where: str, sources: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, with those of the source they name where they have none of their own."""
    fields = dict(raw)
    name = fields.pop("from", None)
    if name is None:
        return fields
    source = sources.get(str(name))
    if not isinstance(source, Mapping):
        raise ConfigError(f"{where}: {unknown_name('source', str(name), sources)}")
    return {**source, **fields}


def _number(value: object, where: str, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}: expected a number, got {value!r}")
    may_be_zero = unit.startswith("USD") or unit == "s"
    if value < 0 or (value == 0 and not may_be_zero):
        raise ConfigError(f"{where}: {value} {unit}, expected {'0 or more' if may_be_zero else 'more than 0'}")
    return float(value)


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Says that a name is unknown, and which ones come near.

    Example:
        >>> unknown_name("model", "lama-3.1-8b", ["llama-3.1-8b", "qwen3-8b"])
        "unknown model 'lama-3.1-8b'; did you mean llama-3.1-8b?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return f"unknown {what} {name!r}; " + (
        f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    )
