"""Power from counters in files, on a clock of its own."""

import pytest

from kvtier.calibrate.energy import PackageEnergy, power_figure


@pytest.fixture
def zones(tmp_path):
    """Two packages and a part of one, which counts already."""
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "package-1")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(name + "\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("999999999\n")
        (tmp_path / zone / "energy_uj").write_text("0\n")
    return tmp_path


def test_power_is_the_energy_of_all_packages_over_the_time(zones):
    now = iter([10.0, 14.0])
    meter = PackageEnergy(zones, lambda: next(now))

    def work():
        for zone, used in (("intel-rapl:0", 60e6), ("intel-rapl:1", 20e6), ("intel-rapl:0:0", 50e6)):
            (zones / zone / "energy_uj").write_text(str(int(used)))

    assert meter.during(work) == pytest.approx((60 + 20) / 4)


def test_a_counter_that_wraps_goes_on(zones):
    (zones / "intel-rapl:1" / "max_energy_range_uj").write_text("999")
    (zones / "intel-rapl:1" / "energy_uj").write_text("998")
    now = iter([0.0, 1.0])
    meter = PackageEnergy(zones, lambda: next(now))

    watts = meter.during(lambda: (zones / "intel-rapl:1" / "energy_uj").write_text("4"))

    assert watts == pytest.approx(6e-6)  # 999, 0, 1, 2, 3, 4


def test_a_machine_without_counters_says_so(tmp_path):
    with pytest.raises(OSError, match="no RAPL counters"):
        PackageEnergy(tmp_path)


def test_a_figure_says_what_it_covers():
    figure = power_figure([10.0, 30.0, 20.0], "RAPL, processor packages alone")

    assert (figure.band, figure.unit) == ((10.0, 20.0, 30.0), "W")
    assert "processor packages alone" in figure.source
