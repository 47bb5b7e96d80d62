"""Tariffs: read from TOML, refused where a figure has no source, unit, sign or name that can be."""

import re
import tomllib
from pathlib import Path

import pytest

import kvtier.econ.billing
from kvtier.econ.billing import breakeven
from kvtier.econ.billing.tariffs import chosen, tariffs
from kvtier.errors import ConfigError

SHIPPED = Path(kvtier.econ.billing.__file__).with_name("providers.toml")

GOOD = """
[sources.page]
title = "a page"
date = "2026-11"

[providers.acme.plans.short]
entries = "marks"
lifetime_s = 60
source = ["page"]

[providers.acme.plans.long]
entries = "marks"
lifetime_s = 600
minimum_tokens = 10
source = ["page"]

[providers.acme.models.one]
input_usd_per_mtok = 2.0
cached_usd_per_mtok = 0.5
write_usd_per_mtok = { short = 3.0 }
minimum_tokens = 99
source = ["page"]

[providers.acme.models.two]
input_usd_per_mtok = 4.0
cached_usd_per_mtok = 1.0
plans = ["long"]
source = ["page"]
"""


@pytest.fixture
def file(tmp_path):
    def write(text=GOOD, *change):
        if change:
            assert text.count(change[0]) >= 1
            text = text.replace(*change)
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_a_tariff_is_a_model_under_a_plan(file):
    found = tariffs(file())

    assert [tariff.name for tariff in found] == ["acme one short", "acme one long", "acme two long"]
    one, other, two = found
    assert (one.write_multiple, one.read_multiple, one.rules.minimum_tokens) == (1.5, 0.25, 99)
    assert (other.write_multiple, other.rules.lifetime_s, other.rules.minimum_tokens) == (1.0, 600, 99)
    assert (two.rules.minimum_tokens, list(two.lifetimes)) == (10, ["long"])
    assert {name: life.seconds for name, life in one.lifetimes.items()} == {"short": 60, "long": 600}
    assert one.sources[0].title == "a page"


def test_lifetimes_of_caches_that_store_elsewhere_are_not_for_marks(file):
    path = file(GOOD, 'entries = "marks"\nlifetime_s = 600', 'entries = "everywhere"\nlifetime_s = 600')

    assert list(tariffs(path)[0].lifetimes) == ["short"]


def test_every_figure_that_is_shipped_has_a_dated_source():
    content = tomllib.loads(SHIPPED.read_text())

    assert all(
        source["title"] and re.fullmatch(r"20\d\d(-\d\d){0,2}", source["date"])
        for source in content["sources"].values()
    )
    named = set()
    for provider in content["providers"].values():
        for table in [*provider["plans"].values(), *provider["models"].values()]:
            assert table["source"]
            named |= set(table["source"])
    assert named == set(content["sources"]), "a source that nothing names is a figure that was lost"


#: (input, cached, write) as in the price tables, US$ per million tokens.
LIST_PRICES = {
    "anthropic haiku-4.5 5m": (1.00, 0.10, 1.25),
    "anthropic haiku-4.5 1h": (1.00, 0.10, 2.00),
    "anthropic sonnet-4.5 5m": (3.00, 0.30, 3.75),
    "anthropic sonnet-4.5 1h": (3.00, 0.30, 6.00),
    "anthropic opus-5 5m": (5.00, 0.50, 6.25),
    "anthropic opus-5 1h": (5.00, 0.50, 10.00),
    "anthropic opus-5.5 5m": (4.00, 0.20, 5.00),
    "anthropic sonnet-5.5 1h": (2.00, 0.10, 4.00),
    "anthropic fable-5.1 5m": (10.00, 0.25, 12.50),
    "anthropic fable-5.1 1h": (10.00, 0.25, 20.00),
    "openai gpt-4o memory": (2.50, 1.25, 2.50),
    "openai gpt-4.1 memory": (2.00, 0.50, 2.00),
    "openai gpt-5 extended": (1.25, 0.125, 1.25),
    "openai gpt-5.6 30m": (4.00, 0.40, 5.00),
    "openai gpt-5.6 over-12h": (4.00, 0.40, 10.00),
    "openai gpt-6.1-sol 30m": (2.00, 0.10, 2.50),
    "google gemini-2.5-pro explicit": (1.25, 0.125, 1.25),
    "google gemini-2.5-flash implicit": (0.30, 0.03, 0.30),
    "google gemini-3.8-flash implicit": (0.75, 0.075, 0.75),
    "google gemini-3.1-pro implicit": (2.00, 0.20, 2.00),
    "deepseek v3 disk": (0.27, 0.07, 0.27),
    "deepseek v3.2 disk": (0.28, 0.028, 0.28),
    "deepseek v4.1-flash units": (0.30, 0.006, 0.30),
    "deepseek v4-pro units": (1.32, 0.044, 1.32),
    "xai grok-4.5 automatic": (2.00, 0.30, 2.00),
    "xai grok-4.7 automatic": (2.00, 0.50, 2.00),
    "xai grok-4.20 automatic": (1.25, 0.20, 1.25),
}


@pytest.mark.parametrize("name", LIST_PRICES)
def test_a_list_price_is_that_of_the_table(name):
    (tariff,) = [tariff for tariff in tariffs() if tariff.name == name]
    prices = tariff.prices

    found = (prices.input_usd_per_mtok, prices.cached_usd_per_mtok, tariff.lifetimes[tariff.plan].write_usd_per_mtok)

    assert found == LIST_PRICES[name]


@pytest.mark.parametrize(
    ("model", "price"), [("2.5-pro", 4.5), ("2.5-flash", 1.0), ("3.8-flash", 0.5), ("3.1-pro", 4.5)]
)
def test_googles_storage_has_its_price(model, price):
    found = {t.prices.storage_usd_per_mtok_hour for t in tariffs() if t.model == f"gemini-{model}"}

    assert found == {price}


BAD = {
    'source = ["page"]\n\n[providers.acme.plans.long]': ("\n[providers.acme.plans.long]", "acme short: no source"),
    'minimum_tokens = 99\nsource = ["page"]': ("minimum_tokens = 99", "acme one: no source"),
    'date = "2026-11"': ("", "sources.page: a source needs a title and a date"),
    'title = "a page"': ("", "a source needs a title and a date"),
    '99\nsource = ["page"]': ('99\nsource = ["pgae"]', "source 'pgae' is not known; did you mean page?"),
    "cached_usd_per_mtok = 0.5": ("cached_usd_per_mtok = -0.5", "cached_usd_per_mtok must be a number of at least 0"),
    "cached_usd_per_mtok = 1.0": ("cached_usd_per_mtok = nan", "at least 0, got nan"),
    "input_usd_per_mtok = 2.0": ("input_usd_per_ktok = 2.0", "did you mean input_usd_per_mtok"),
    "input_usd_per_mtok = 4.0": ("input_usd_per_mtok = 0", "input_usd_per_mtok must be above 0"),
    "input_usd_per_mtok = 4.0\n": ("", "acme two: .*input_usd_per_mtok"),
    "short = 3.0": ("short = -3.0", "write of short must be a number of at least 0"),
    "{ short = 3.0 }": ("{ shrot = 3.0 }", "'shrot' is not known; did you mean short"),
    'plans = ["long"]': ('plans = ["lnog"]', "plan 'lnog' is not known; did you mean long"),
    'entries = "marks"\nlifetime_s = 60\n': (
        'entries = "some"\nlifetime_s = 60\n',
        "entries must be one of everywhere, ends, marks",
    ),
    "lifetime_s = 60\n": ("lifetime_s = 0\n", "lifetime_s must be a number above 0"),
    "lifetime_s = 600\n": ("lifetime_m = 10\n", "key 'lifetime_m' is not known; did you mean lifetime_s"),
    "lifetime_s = 60\nsource": ("source", "acme short: .*lifetime_s"),
    "minimum_tokens = 10": ("minimum_tokens = 10\nmax_marks = -4", "max_marks must be a number above 0"),
    "minimum_tokens = 10\n": ("look_back = true\n", "look_back must be a number above 0"),
    "minimum_tokens = 10\nsource": ("made_apart = true\nsource", "set refreshed_on_use to false"),
    "[providers.acme.models.two]": ("[providers.acme.modles.two]", "key 'modles' is not known; did you mean models"),
    "[sources.page]": ("[source.page]", "key 'source' is not known; did you mean sources"),
    '99\nsource = ["page"]\n': ('99\nsource = "page"\n', "source must be a list of names, got 'page'"),
    'plans = ["long"]\n': ("plans = 5\n", "plans must be a list of names, got 5"),
    "{ short = 3.0 }\n": ("3.0\n", "write_usd_per_mtok must be a table of plan = price, got 3.0"),
    "lifetime_s = 600\nminimum": ('lifetime_s = 600\nrouted = "no"\nminimum', "routed must be true or false, got 'no'"),
    "lifetime_s = 600\nminimum_tokens": ("lifetime_s = 600\nassumed = [5]\nminimum_tokens", "assumed must be a list"),
    "[sources.page]\n": ("[sources.page\n", "cannot be read"),
}


@pytest.mark.parametrize(("right", "change"), BAD.items(), ids=range(len(BAD)))
def test_a_file_with_a_mistake_is_refused_with_its_place(file, right, change):
    wrong, what = change

    with pytest.raises(ConfigError, match=what) as refused:
        tariffs(file(GOOD, right, wrong))

    assert "mine.toml" in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "[sources.page]\ntitle = 'x'\ndate = '2026'", "[sources]\n[providers]\n", "sources = 5"]
)
def test_a_file_without_tables_is_refused(file, text):
    with pytest.raises(ConfigError, match="there must be tables named"):
        tariffs(file(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        tariffs(tmp_path / "gone.toml")


def test_the_first_model_of_each_provider_is_billed_if_none_is_named(file):
    every = tariffs(file())

    assert [tariff.name for tariff in chosen(every)] == ["acme one short", "acme one long"]
    assert [tariff.name for tariff in chosen(every, models=["two"])] == ["acme two long"]
    assert {tariff.provider for tariff in chosen(tariffs())} == {"anthropic", "openai", "google", "deepseek", "xai"}


def test_only_the_providers_asked_for_are_billed():
    assert {tariff.provider for tariff in chosen(tariffs(), ["xai", "openai"])} == {"xai", "openai"}


@pytest.mark.parametrize(
    ("providers", "models", "what"),
    [
        (["antropic"], [], "provider 'antropic' is not known; did you mean anthropic"),
        (["zzz"], [], "there are anthropic, deepseek, google, openai, xai"),
        ([], ["gpt5"], "model 'gpt5' is not known; did you mean gpt-5"),
        (["xai"], ["gpt-5"], "model 'gpt-5' is not known"),
    ],
)
def test_an_unknown_name_gets_near_ones(providers, models, what):
    with pytest.raises(ConfigError, match=what):
        chosen(tariffs(), providers, models)


# Break-evens


@pytest.mark.parametrize(
    ("formula", "arguments", "expected"),
    [
        # (1.25 - 1) / (1 - 0.1) and (2 - 1) / (1 - 0.1)
        (breakeven.reuses_to_pay, {"write": 1.25, "read": 0.1}, 0.2778),
        (breakeven.reuses_to_pay, {"write": 2, "read": 0.1}, 1.1111),
        # 0.25 / 1.15 and 1 / 1.9
        (breakeven.hit_share_to_pay, {"write": 1.25, "read": 0.1}, 0.2174),
        (breakeven.hit_share_to_pay, {"write": 2, "read": 0.1}, 0.5263),
        # -ln(1 - 0.2174) * 12 per hour
        (breakeven.rate_to_pay_per_hour, {"write": 1.25, "read": 0.1, "lifetime_s": 300}, 2.9415),
        # 0.75 / 1.15
        (breakeven.expiries_for_longer, {"write": 1.25, "longer_write": 2, "read": 0.1}, 0.6522),
        # 1.25 / 0.1 - 1 = 11.5; 1.25 / 0.025 - 1 = 49, and n must stay below
        (breakeven.most_pings, {"write": 1.25, "read": 0.1}, 11),
        (breakeven.most_pings, {"write": 1.25, "read": 0.025}, 48),
        # 2.5 / 0.05 - 1 = 49, though it comes out higher in its last bit
        (breakeven.most_pings, {"write": 7.5 / 3, "read": 0.15 / 3}, 48),
        (breakeven.most_pings, {"write": 1, "read": 0.5}, 0),
        (breakeven.most_pings, {"write": 1, "read": 0.9}, 0),
        # 10 * (1.25 - 0.1) - 1.25
        (breakeven.warm_up_saving, {"num_calls": 10, "write": 1.25, "read": 0.1}, 10.25),
        # ln(1.9 / 1.15) over 55 minutes
        (
            breakeven.rate_for_longer_per_hour,
            {"write": 1.25, "lifetime_s": 300, "longer_write": 2, "longer_lifetime_s": 3600, "read": 0.1},
            0.5477,
        ),
    ],
)
def test_a_break_even_is_what_arithmetic_says(formula, arguments, expected):
    assert formula(**arguments) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("model", "minutes"), [("2.5-pro", 15.0), ("2.5-flash", 16.2), ("3.8-flash", 81.0)])
def test_an_entry_rented_by_the_hour_must_be_reused_this_often(model, minutes):
    prices = next(tariff.prices for tariff in tariffs() if tariff.model == f"gemini-{model}")

    gap_s = breakeven.longest_gap_between_reuses_s(
        input_usd_per_mtok=prices.input_usd_per_mtok,
        cached_usd_per_mtok=prices.cached_usd_per_mtok,
        storage_usd_per_mtok_hour=prices.storage_usd_per_mtok_hour,
    )

    assert gap_s / 60 == pytest.approx(minutes, abs=0.05)


@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        (breakeven.reuses_to_pay, {"write": 0.9, "read": 0.1}),
        (breakeven.reuses_to_pay, {"write": 1.25, "read": 1}),
        (breakeven.warm_up_saving, {"num_calls": 2, "write": 1.25, "read": -0.1}),
        (breakeven.most_pings, {"write": 1.25, "read": 0}),
        (
            breakeven.longest_gap_between_reuses_s,
            {"input_usd_per_mtok": 1, "cached_usd_per_mtok": 0, "storage_usd_per_mtok_hour": 0},
        ),
        (
            breakeven.rate_for_longer_per_hour,
            {"write": 1.25, "lifetime_s": 300, "longer_write": 2, "longer_lifetime_s": 300, "read": 0.1},
        ),
    ],
)
def test_prices_that_cannot_be_are_refused(formula, arguments):
    with pytest.raises(ConfigError):
        formula(**arguments)
