"""Prices and caching rules of providers, read from TOML in which every figure has a source and a date.

    [sources.NAME]                  title, date
    [providers.P.plans.NAME]        rules: what is stored, for how long, what counts as a hit
    [providers.P.models.NAME]       prices per million tokens, and which plans there are

A tariff is one model under one plan. Units are part of the keys, so a figure in another unit is an unknown
key and is refused; so is a table without a source, and a price below zero. Tables may override a rule
(``minimum_tokens`` differs between models of one provider).
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from kvtier.errors import ConfigError

ENTRIES = ("everywhere", "ends", "marks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where figures come from."""

    title: str
    date: str
    """When they were so: year and month, or a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a provider's cache takes something in, how long it keeps it, and what it counts as a hit."""

    entries: str
    """Where a prefix that can be hit may end: ``"everywhere"``; at ``"ends"`` of requests and of prefixes that
    two requests were seen to share; or at the ``"marks"`` of earlier requests alone."""

    lifetime_s: float
    """How long an entry is kept; from its last use where ``refreshed_on_use``, from its making otherwise."""

    minimum_tokens: int = 1
    """A shorter prefix is neither stored nor hit."""

    unit_tokens: int = 1
    """Hits and stored prefixes are whole multiples of this."""

    refreshed_on_use: bool = True
    routed: bool = False
    """A call may land on a machine that does not have the entry; how often is the caller's guess."""

    stores_output: bool = False
    """The end of an answer is an entry too, where the traffic says what the answer became."""

    max_marks: int | None = None
    look_back: int | None = None
    """Segments that are searched for an entry at each mark, the marked one included; None searches all."""

    made_apart: bool = False
    """An entry is made before the call by one of its own, which pays for all its tokens; the call then reads it."""

    def __post_init__(self) -> None:
        if self.entries not in ENTRIES:
            raise ConfigError(f"entries must be one of {', '.join(ENTRIES)}, got {self.entries!r}")
        counts: dict[str, float] = {"minimum_tokens": self.minimum_tokens, "unit_tokens": self.unit_tokens}
        counts |= {"max_marks": self.max_marks or 1, "look_back": self.look_back or 1, "lifetime_s": self.lifetime_s}
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigError(f"{name} must be a number above 0, got {value!r}")
        for name in ("refreshed_on_use", "routed", "stores_output", "made_apart"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if self.made_apart and self.refreshed_on_use:
            raise ConfigError("an entry made apart is paid for its whole lifetime: set refreshed_on_use to false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """List prices of one model, US$ per million tokens."""

    input_usd_per_mtok: float
    cached_usd_per_mtok: float
    output_usd_per_mtok: float | None = None
    """None where no source is at hand: answers are then not billed."""

    storage_usd_per_mtok_hour: float = 0.0
    long_prompt_tokens: float = math.inf
    """A longer prompt pays ``long_prompt_factor`` times the input prices, for all its tokens."""

    long_prompt_factor: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            price = getattr(self, field.name)
            if price is not None:
                check_price(field.name, price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """One of the times for which a provider offers to keep an entry."""

    seconds: float
    write_usd_per_mtok: float
    """Price of a token that is stored, in place of the input price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """One model under one plan."""

    provider: str
    model: str
    plan: str
    rules: Rules
    prices: Prices
    lifetimes: Mapping[str, Lifetime]
    """What a mark may ask for, by name; the plan's own is under its name."""

    sources: tuple[Source, ...]
    assumed: tuple[str, ...] = ()
    """Rules that no provider documents and somebody had to choose."""

    note: str = ""

    @property
    def name(self) -> str:
        """As the command names it."""
        return f"{self.provider} {self.model} {self.plan}"

    @property
    def write_multiple(self) -> float:
        """Price of a stored token over that of an input token (w)."""
        return self.lifetimes[self.plan].write_usd_per_mtok / self.prices.input_usd_per_mtok

    @property
    def read_multiple(self) -> float:
        """Price of a cached token over that of an input token (r)."""
        return self.prices.cached_usd_per_mtok / self.prices.input_usd_per_mtok


def tariffs(path: Path | None = None) -> list[Tariff]:
    """All tariffs of a file, in its order.

    Args:
        path: TOML as described above; None takes the list prices that come with kvtier.

    Raises:
        ConfigError: The file cannot be read, or something in it has no source, a wrong name, unit or sign.
    """
    where = "providers.toml" if path is None else str(path)
    try:
        text = (resources.files(__package__) / where).read_text() if path is None else path.read_text()
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"{where} cannot be read: {exc}") from exc
    _known(where, content, {"sources", "providers"})
    sources = {name: _source(f"{where}, sources.{name}", table) for name, table in _tables(where, content, "sources")}
    found = []
    for provider, table in _tables(where, content, "providers"):
        found += _of_provider(f"{where}, {provider}", provider, table, sources)
    return found


def chosen(
    all_tariffs: Collection[Tariff], providers: Collection[str] = (), models: Collection[str] = ()
) -> list[Tariff]:
    """The tariffs of the providers and models asked for; of each provider's first model where none is named.

    Raises:
        ConfigError: A name is not there; the message has near ones.
    """
    known = {tariff.provider for tariff in all_tariffs}
    for name in providers:
        _ask("provider", name, known)
    there = [tariff for tariff in all_tariffs if not providers or tariff.provider in providers]
    for name in models:
        _ask("model", name, {tariff.model for tariff in there})
    if models:
        return [tariff for tariff in there if tariff.model in models]
    firsts: dict[str, str] = {}
    for tariff in there:
        firsts.setdefault(tariff.provider, tariff.model)
    return [tariff for tariff in there if tariff.model == firsts[tariff.provider]]


def check_price(name: str, value: object) -> float:
    """A price or factor that can be one.

    Raises:
        ConfigError: It is no number, or below zero.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f"{name} must be a number of at least 0, got {value!r}")
    return float(value)


def _of_provider(where: str, provider: str, table: Mapping[str, Any], sources: Mapping[str, Source]) -> list[Tariff]:
    """Every model under every plan that it offers."""
    _known(where, table, {"plans", "models"})
    plans = dict(_tables(where, table, "plans"))
    found = []
    for model, raw in _tables(where, table, "models"):
        here = f"{where} {model}"
        offered = _names(here, raw, "plans") or list(plans)
        for plan in offered:
            _ask(f"{here}: plan", plan, plans)
        rules = {plan: _rules(f"{where} {plan}", plans[plan], raw) for plan in offered}
        prices, writes = _prices(here, raw)
        _known(f"{here}: write_usd_per_mtok", writes, offered)
        times = {
            plan: Lifetime(
                seconds=rules[plan].lifetime_s, write_usd_per_mtok=writes.get(plan, prices.input_usd_per_mtok)
            )
            for plan in offered
        }
        for plan in offered:
            alike = {other: times[other] for other in offered if rules[other].entries == rules[plan].entries}
            found.append(
                Tariff(
                    provider=provider,
                    model=model,
                    plan=plan,
                    rules=rules[plan],
                    prices=prices,
                    lifetimes=alike,
                    sources=_sources(here, raw, sources) + _sources(f"{where} {plan}", plans[plan], sources),
                    assumed=_names(f"{where} {plan}", plans[plan], "assumed"),
                    note=" ".join(filter(None, (plans[plan].get("note"), raw.get("note")))),
                )
            )
    return found


def _rules(where: str, plan: Mapping[str, Any], model: Mapping[str, Any]) -> Rules:
    names = {field.name for field in fields(Rules)}
    _known(where, plan, names | {"source", "assumed", "note"})
    try:
        rules = Rules(**{name: value for name, value in plan.items() if name in names})
        return replace(rules, **{name: model[name] for name in ("minimum_tokens",) if name in model})
    except (TypeError, ConfigError) as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _prices(where: str, raw: Mapping[str, Any]) -> tuple[Prices, dict[str, float]]:
    names = {field.name for field in fields(Prices)}
    _known(where, raw, names | {"write_usd_per_mtok", "plans", "minimum_tokens", "source", "note"})
    table = raw.get("write_usd_per_mtok", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: write_usd_per_mtok must be a table of plan = price, got {table!r}")
    try:
        prices = Prices(**{name: value for name, value in raw.items() if name in names})
        writes = {plan: check_price(f"write of {plan}", price) for plan, price in table.items()}
    except (TypeError, ConfigError) as exc:
        raise ConfigError(f"{where}: {exc}") from exc
    if prices.input_usd_per_mtok == 0:
        raise ConfigError(f"{where}: input_usd_per_mtok must be above 0: all shares are of it")
    return prices, writes


def _source(where: str, table: Mapping[str, Any]) -> Source:
    _known(where, table, {"title", "date"})
    if not (table.get("title") and table.get("date")):
        raise ConfigError(f"{where}: a source needs a title and a date")
    return Source(title=str(table["title"]), date=str(table["date"]))


def _sources(where: str, table: Mapping[str, Any], sources: Mapping[str, Source]) -> tuple[Source, ...]:
    named = _names(where, table, "source")
    if not named:
        raise ConfigError(f"{where}: no source; every figure needs one: source = [NAME, ...] of those under [sources]")
    for name in named:
        _ask(f"{where}: source", name, sources)
    return tuple(sources[name] for name in named)


def _names(where: str, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of names; none where the key is not there."""
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{where}: {key} must be a list of names, got {found!r}")
    return tuple(found)


def _tables(where: str, content: Mapping[str, Any], name: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    tables = content.get(name)
    if not isinstance(tables, dict) or not tables or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{where}: there must be tables named [{name}.NAME]")
    return tables.items()


def _known(where: str, table: Iterable[str], names: Collection[str]) -> None:
    """Refuse a key that means nothing here; a figure in another unit is one."""
    for key in table:
        _ask(f"{where}: key", key, names)


def _ask(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
        raise ConfigError(f"{what} {name!r} is not known; {meant}")
