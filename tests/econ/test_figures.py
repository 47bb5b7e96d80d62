"""Figures without a source, in another unit, or absurd are refused, wherever they stand; files lie over files."""

import math

import pytest

from kvtier.econ.figures import read_figure, unknown_name
from kvtier.econ.hardware import load_hardware
from kvtier.econ.prices import find_prices, load_prices
from kvtier.errors import ConfigError

GOOD = {"value": 2.5, "unit": "USD/h", "source": "a price page", "date": "2026-05", "kind": "given"}


def read(raw, unit="USD/h", **options):
    return read_figure(raw, "file: field", unit, **options)


def test_a_good_figure_is_read_as_it_is():
    figure = read(GOOD)

    assert figure.as_dict() == GOOD
    assert figure.band == (2.5, 2.5, 2.5)


def test_a_band_is_read_and_written():
    figure = read(GOOD | {"lo": 2, "hi": 3})

    assert figure.band == (2, 2.5, 3)
    assert read(figure.as_dict()) == figure


@pytest.mark.parametrize("field", list(GOOD))
@pytest.mark.parametrize("how", ["absent", "empty", "null"])
def test_a_figure_that_lacks_something_is_refused_and_the_lack_named(field, how):
    raw = {name: value for name, value in GOOD.items() if name != field}
    if how != "absent":
        raw[field] = {"empty": "", "null": None}[how]

    with pytest.raises(ConfigError, match=f"file: field: has no {field}; a figure is used only with its source"):
        read(raw)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"unit": "USD/month"}, "unit 'USD/month', expected 'USD/h'.*not mixed"),
        ({"value": -1}, "expected 0 or more"),
        ({"value": math.nan}, "expected a number"),
        ({"value": math.inf}, "expected a number"),
        ({"value": "2.5"}, "expected a number, got '2.5'"),
        ({"value": True}, "expected a number"),
        ({"kind": "guessed"}, "none of measured, given, assumed"),
        ({"date": "May 2026"}, "date like '2026-11'"),
        ({"date": 2026}, "date like '2026-11'"),
        ({"source": 7}, "source must be text"),
        ({"source": ["a", "b"]}, "source must be text"),
        ({"lo": 3, "hi": 4}, "outside its own band from 3.0 to 4.0"),
        ({"hi": 2}, "outside its own band"),
        ({"lo": -1}, "lo: -1 USD/h"),
        ({"price": 3}, "price is not a field"),
    ],
)
def test_a_figure_that_is_wrong_is_refused(change, complaint):
    with pytest.raises(ConfigError, match=f"file: field.*{complaint}"):
        read(GOOD | change)


@pytest.mark.parametrize("raw", [2.5, "2.5", None, [2.5]])
def test_a_bare_number_is_no_figure(raw):
    with pytest.raises(ConfigError, match="expected a figure with value, unit, source, date, kind"):
        read(raw)


def test_a_price_may_be_zero_and_a_speed_may_not():
    assert read(GOOD | {"value": 0}).value == 0
    assert read(GOOD | {"value": 0, "unit": "s"}, "s").value == 0
    with pytest.raises(ConfigError, match="0 bytes/s, expected more than 0"):
        read(GOOD | {"value": 0, "unit": "bytes/s"}, "bytes/s")


@pytest.mark.parametrize("date", ["2026", "2026-11", "2026-11-30"])
def test_a_date_is_a_year_a_month_or_a_day(date):
    assert read(GOOD | {"date": date}).date == date


SOURCES = {"page": {"source": "a page", "date": "2025", "kind": "given"}}


def test_a_figure_may_name_its_source():
    figure = read({"value": 1, "unit": "USD/h", "from": "page"}, sources=SOURCES)

    assert (figure.source, figure.date, figure.kind) == ("a page", "2025", "given")


def test_what_a_figure_says_itself_goes_before_its_source():
    assert read({"value": 1, "unit": "USD/h", "from": "page", "date": "2026"}, sources=SOURCES).date == "2026"


def test_a_source_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="unknown source 'pag'; did you mean page"):
        read({"value": 1, "unit": "USD/h", "from": "pag"}, sources=SOURCES)


def test_a_name_that_is_near_none_gets_all():
    assert unknown_name("model", "zzz", ["b", "a"]) == "unknown model 'zzz'; known: a, b"


# Files


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


RENT = 'usd_per_hour = {value = 9, unit = "USD/h", source = "my bill", date = "2026-11", kind = "given"}\n'


def test_a_file_replaces_one_field_and_leaves_the_rest(file):
    mine, shipped = load_hardware(file("[accelerator.h100]\n" + RENT)), load_hardware()

    assert mine.accelerator("h100").usd_per_hour.source == "my bill"
    assert mine.accelerator("h100").mfu == shipped.accelerator("h100").mfu
    assert mine.accelerator("h200") == shipped.accelerator("h200")


def test_a_file_adds_an_entry(file):
    rent = 'rent_usd_per_gb_hour = {value = 1, unit = "USD/GB-h", source = "x", date = "2026", kind = "assumed"}\n'

    assert load_hardware(file('[medium.Tape]\ntier = "host"\n' + rent)).medium("tape").rent.value == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[accelerator.mine]\n" + RENT, "accelerator 'mine' has no peak_bf16_flop_per_s, mfu, hbm_bytes"),
        ("[accelerator.h100]\n" + RENT.replace("9", "-9"), "mine.toml: accelerator.h100.usd_per_hour: value: -9"),
        ("[accelerator.h100]\n" + RENT.replace("USD/h", "USD/month"), "units are not mixed"),
        ("[accelerator.h100]\n" + RENT.replace('source = "my bill", ', ""), "has no source"),
        ("[accelerator.h100]\n" + RENT.replace("usd_per_hour", "usd_per_our"), "unknown field 'usd_per_our'; did you"),
        ("[accelerators.h100]\n" + RENT, "unknown section 'accelerators'; did you mean accelerator"),
        ("sources = 3", "sources: expected a table, got 3"),
        ("accelerator = 3", "expected a table, got 3"),
        ("[accelerator]\nh100 = 3", "expected a table, got 3"),
        ("[accelerator.h100", "not TOML"),
        ("[medium.nvme-rented]\ntier = 3", "expected text, got 3"),
        ('[medium.nvme-rented]\ntier = "tape"', "tier 'tape' is none of host, disk, remote"),
        ('[medium.mine]\ntier = "host"', "exactly one of rent_usd_per_gb_hour"),
    ],
)
def test_a_file_with_something_wrong_is_refused_with_its_place(file, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_hardware(file(text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_hardware(tmp_path / "none.toml")


PRICE = '{value = 1, unit = "USD/GB", source = "x", date = "2026", kind = "given"}'


def test_a_medium_is_rented_or_bought_and_not_both(file):
    with pytest.raises(ConfigError, match="'nvme-rented': expected exactly one"):
        load_hardware(file(f"[medium.nvme-rented]\nprice_usd_per_gb = {PRICE}"))


def test_a_bought_medium_needs_a_life(file):
    with pytest.raises(ConfigError, match="no life_years"):
        load_hardware(file(f'[medium.mine]\ntier = "host"\nprice_usd_per_gb = {PRICE}'))


def test_a_drive_needs_its_speeds(file):
    rent = PRICE.replace("USD/GB", "USD/GB-h")

    with pytest.raises(ConfigError, match="needs read_bytes_per_s and write_bytes_per_s"):
        load_hardware(file(f'[medium.mine]\ntier = "disk"\nrent_usd_per_gb_hour = {rent}'))


# Hardware


def test_rent_of_what_is_bought_is_spread_over_its_life():
    nvme = load_hardware().medium("nvme-bought")

    assert nvme.rent.value == pytest.approx(0.30 / (5 * 8760))
    assert nvme.rent.band == pytest.approx((0.10 / 43800, 0.30 / 43800, 0.30 / 43800))
    assert nvme.rent.unit == "USD/GB-h"
    assert "5 years" in nvme.rent.source


def test_rent_by_the_month_is_that_of_730_hours():
    assert load_hardware().medium("ebs-gp3").rent.value == pytest.approx(0.08 / 730)


def test_a_drive_costs_the_rent_of_all_its_bytes():
    assert load_hardware().medium("nvme-rented").device_usd_per_hour.value == pytest.approx(0.000213 * 3840)
    assert load_hardware().medium("dram-rented").device_usd_per_hour is None


def test_only_what_is_bought_and_has_an_endurance_wears():
    hardware = load_hardware()

    assert hardware.medium("qlc-bought").wear_usd_per_gb.value == pytest.approx(0.30 / (0.26 * 365 * 5))
    assert hardware.medium("nvme-rented").wear_usd_per_gb is None
    assert hardware.medium("dram-bought").wear_usd_per_gb is None


@pytest.mark.parametrize(("ask", "near"), [("h10", "h100"), ("H2000", "h200")])
def test_unknown_hardware_is_refused_with_near_names(ask, near):
    with pytest.raises(ConfigError, match=f"unknown hardware '{ask}'; did you mean .*{near}"):
        load_hardware().accelerator(ask)


def test_an_unknown_medium_is_refused_with_near_names():
    with pytest.raises(ConfigError, match="unknown medium 'nvme-rentd'; did you mean nvme-rented"):
        load_hardware().medium("nvme-rentd")


# Prices


@pytest.mark.parametrize(
    ("name", "share", "write"),
    [
        ("anthropic/haiku-4.5", 0.10, 1.25),
        ("anthropic/opus-5.5", 0.05, 1.25),
        ("anthropic/fable-5.1", 0.025, 1.25),
        ("openai/gpt-4o", 0.50, 1),
        ("openai/gpt-5.6", 0.10, 1.25),
        ("openai/gpt-6.1-sol", 0.05, 1.25),
        ("google/gemini-2.5-pro", 0.10, 1),
        ("deepseek/v3", 0.26, 1),
        ("deepseek/v4.1-flash", 0.02, 1),
        ("deepseek/v4-pro", 0.033, 1),
        ("xai/grok-4.20", 0.16, 1),
        ("zai/glm-4.6", 0.18, 1),
        ("alibaba/qwen3.7-max", 0.20, 1.25),
        ("mistral/all", 0.10, 1),
        ("google/implicit", 0.10, 1),
    ],
)
def test_shares_of_the_input_price(name, share, write):
    price = load_prices()[name]

    assert price.share == pytest.approx(share, abs=0.005)
    assert price.write_multiple == pytest.approx(write)


def test_every_list_price_is_given_and_dated():
    figures = [
        figure
        for price in load_prices().values()
        for figure in (price.input, price.cached_read, price.read_share, price.write, price.write_long, price.storage)
        if figure is not None
    ]

    assert len(figures) > 60
    assert all(figure.kind == "given" and figure.source and figure.date >= "2024" for figure in figures)


def test_a_provider_stands_for_its_models():
    prices = load_prices()

    assert {price.provider for price in find_prices("DeepSeek", prices)} == {"deepseek"}
    assert [price.name for price in find_prices("gpt-4o", prices)] == ["openai/gpt-4o"]
    assert [price.name for price in find_prices("openai/gpt-4o", prices)] == ["openai/gpt-4o"]


def test_an_unknown_provider_is_refused_with_near_names():
    with pytest.raises(ConfigError, match="unknown provider or model 'antropic'; did you mean anthropic"):
        find_prices("antropic", load_prices())


MINE = '[price."mine/model"]\nprovider = "mine"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (MINE, "needs input and cached_read, or read_share"),
        (MINE.replace('provider = "mine"', ""), "has no provider"),
        (MINE + f"input = {PRICE}", "unit 'USD/GB', expected 'USD/Mtok'"),
        (MINE + "input = 3", "expected a figure"),
    ],
)
def test_a_price_that_lacks_something_is_refused(file, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_prices(file(text))


def test_an_input_that_is_free_is_no_measure_of_anything(file):
    free = PRICE.replace("USD/GB", "USD/Mtok").replace("value = 1", "value = 0")

    with pytest.raises(ConfigError, match="input is 0"):
        load_prices(file(MINE + f"input = {free}\ncached_read = {free}"))
