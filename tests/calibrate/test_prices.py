"""Prices of a machine: given by its user, or assumed from the files, and labelled so."""

import pytest

from kvtier.calibrate.prices import price_machine
from kvtier.econ.hardware import load_hardware
from kvtier.errors import ConfigError


def priced(**change):
    asked = {"gpu": None, "gpu_bytes": 0, "cores": 4, "machine_usd_per_hour": None, "media": None}
    return price_machine(load_hardware(), **(asked | change))


def test_a_processor_costs_its_cores_and_that_is_assumed():
    price = priced().machine

    assert price.value == pytest.approx(4 * 0.4032 / 8)
    assert price.kind == "assumed"
    assert price.date == "2026-05"
    assert "m7i.2xlarge" in price.source
    assert "4 cores" in price.source


def test_a_price_from_the_command_line_is_given():
    price = priced(machine_usd_per_hour=0.25).machine

    assert (price.value, price.kind, price.source) == (0.25, "given", "--machine-price")


def test_a_gpu_is_found_by_a_word_of_its_name():
    found = priced(gpu="NVIDIA H100 80GB HBM3", gpu_bytes=80 * 10**9)

    assert (found.machine.value, found.machine.kind) == (2.50, "assumed")
    assert found.terms("device")["rent_usd_per_gb_hour"].value == pytest.approx(2.50 / 80)


def test_an_unknown_gpu_needs_a_price():
    with pytest.raises(ConfigError, match="no price is known for 'NVIDIA H1001'; give --machine-price"):
        priced(gpu="NVIDIA H1001", gpu_bytes=1)

    assert priced(gpu="NVIDIA H1001", gpu_bytes=10**9, machine_usd_per_hour=1.0).machine.value == 1.0


def test_rents_are_those_of_rented_media_and_assumed():
    terms = priced().terms("disk")

    assert terms["rent_usd_per_gb_hour"].value == 0.000213
    assert {figure.kind for figure in terms.values()} == {"assumed"}
    assert "wear_usd_per_gb" not in terms


def test_a_medium_that_was_named_keeps_its_label_and_the_other_its_default():
    found = priced(media=["nvme-bought"])

    assert found.terms("disk")["wear_usd_per_gb"].value == pytest.approx(0.30 / (365 * 5))
    assert found.terms("disk")["power_w"].kind == "given"
    assert found.terms("host")["rent_usd_per_gb_hour"].kind == "assumed"


@pytest.mark.parametrize(
    ("media", "says"),
    [
        (["nvme-bough"], "unknown medium 'nvme-bough'; did you mean nvme-bought"),
        (["nvme-bought", "nvme-rented"], "two are for the disk tier"),
        (["s3-standard"], "'s3-standard' is for a remote tier, which cannot be measured here"),
    ],
)
def test_a_medium_that_cannot_be_is_refused(media, says):
    with pytest.raises(ConfigError, match=says):
        priced(media=media)


def test_a_file_of_ones_own_replaces_the_rent_of_a_core(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[processor.cpu-rented]\n"
        'usd_per_core_hour = {value = 1.5, unit = "USD/h", source = "me", date = "2026-11", kind = "given"}\n'
    )

    found = price_machine(
        load_hardware(path), gpu=None, gpu_bytes=0, cores=2, machine_usd_per_hour=None, media=None
    ).machine

    assert found.value == 3.0
    assert found.source == "me; 2 cores of that; assumed of this machine"


def test_an_unknown_processor_is_refused():
    with pytest.raises(ConfigError, match="unknown processor 'cpu-rentd'; did you mean cpu-rented"):
        load_hardware().processor("cpu-rentd")
