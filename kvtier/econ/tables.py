"""Files of figures: TOML with a list of sources and tables of entries, shipped or the user's own.

    [sources.page]
    source = "the maker's price page"
    date = "2026-11"
    kind = "given"

    [medium.nvme-rented]
    tier = "disk"
    rent_usd_per_gb_hour = {value = 0.000213, unit = "USD/GB-h", from = "page"}

A user's file is laid over the shipped one field by field, so that a price of one's own needs one
line and not a copy of everything that stands around it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kvtier.econ.figures import Figure, read_figure, unknown_name
from kvtier.errors import ConfigError

Entries = dict[str, dict[str, dict[str, Any]]]
"""Section, entry, field: figures and texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The fields that entries of one section may have."""

    units: Mapping[str, str]
    """Unit of each field that is a figure."""

    texts: frozenset[str] = frozenset()
    """Fields that are words."""


def load_tables(shipped: str, path: Path | None, sections: Mapping[str, Section]) -> Entries:
    """The shipped entries, and those of the user's file over them.

    Args:
        shipped: Name of a file in ``kvtier/econ/data``.
        path: The user's, or None.
        sections: What a file may hold.

    Raises:
        ConfigError: A file cannot be read, or holds a figure, field or section that it must not.
    """
    entries = read_tables((files("kvtier.econ") / "data" / shipped).read_text(), shipped, sections)
    if path is None:
        return entries
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}") from exc
    for section, found in read_tables(text, str(path), sections).items():
        for name, fields in found.items():
            entries[section].setdefault(name, {}).update(fields)
    return entries


def read_tables(text: str, where: str, sections: Mapping[str, Section]) -> Entries:
    """Entries of a file, every figure checked.

    Raises:
        ConfigError: See ``load_tables``.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{where}: not TOML: {exc}") from exc
    sources = _table(raw.pop("sources", {}), f"{where}: sources")
    entries: Entries = {section: {} for section in sections}
    for section, found in raw.items():
        if section not in sections:
            raise ConfigError(f"{where}: {unknown_name('section', section, [*sections, 'sources'])}")
        for name, fields in _table(found, f"{where}: {section}").items():
            place = f"{where}: {section}.{name}"
            entries[section][name] = {
                field: _value(value, f"{place}.{field}", field, sections[section], sources)
                for field, value in _table(fields, place).items()
            }
    return entries


def _table(raw: object, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: expected a table, got {raw!r}")
    return raw


def _value(raw: object, where: str, field: str, section: Section, sources: Mapping[str, Any]) -> Figure | str:
    if field in section.texts:
        if not isinstance(raw, str):
            raise ConfigError(f"{where}: expected text, got {raw!r}")
        return raw
    if field not in section.units:
        raise ConfigError(f"{where}: {unknown_name('field', field, [*section.units, *section.texts])}")
    return read_figure(raw, where, section.units[field], sources)


def build(cls: type[Any], name: str, fields: Mapping[str, Any], required: tuple[str, ...], what: str) -> Any:
    """An object of ``cls`` from an entry.

    Raises:
        ConfigError: A required field is missing; all that are get named.
    """
    missing = [field for field in required if field not in fields]
    if missing:
        raise ConfigError(f"{what} {name!r} has no {', '.join(missing)}")
    return cls(name=name, **fields)
