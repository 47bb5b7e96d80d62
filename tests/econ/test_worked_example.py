"""Every cell of a worked example, from the functions: three models on H100s at 2.50 USD an hour, KV in bfloat16.

The cells are as printed by who worked it out independently; a value fits if it is within 2 % of the cell, or
within half a unit of the cell's last digit.
"""

import re

import pytest

from kvtier.econ import formulas, keeping
from kvtier.econ.derive import derive_profile
from kvtier.econ.hardware import load_hardware
from kvtier.econ.models import load_model
from kvtier.econ.profile import Profile

HARDWARE = load_hardware()
H100 = HARDWARE.accelerator("h100")
MODELS = {"8b": "llama-3.1-8b", "70b": "llama-3.1-70b", "v3": "deepseek-v3"}
GPUS = {"8b": 1, "70b": 8, "v3": 8}
SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
K8, K64 = 8192, 65536


def fits(value, cell):
    number, unit = re.fullmatch(r"([\d.]+) ?(\w*)", cell).groups()
    half_a_digit = 0.5 * 10 ** -len(number.partition(".")[2])
    return abs(value / SECONDS[unit] - float(number)) <= max(0.02 * float(number), half_a_digit * (1 + 1e-9))


def check(value, cell):
    assert fits(value, cell), f"{value} is not {cell}"


def test_the_check_tells_three_per_cent():
    assert fits(3.61, "3.6")
    assert not fits(3.71, "3.6")
    assert fits(192, "3.2 min")
    assert not fits(198, "3.2 min")


def flop_per_token(column, tokens):
    return load_model(MODELS[column]).prefill_flops(0, tokens) / tokens


def speed(column, tokens):
    """Half of the peak; DeepSeek-V3 as measured at some 4 Ki tokens on eight GPUs, scaled by its FLOP."""
    if column == "v3":
        return 32_200 * flop_per_token("v3", 4096) / flop_per_token("v3", tokens)
    return formulas.prefill_tokens_per_s(
        flop_per_token=flop_per_token(column, tokens),
        peak_flop_per_s=H100.peak_bf16_flop_per_s.value,
        mfu=H100.mfu.value,
        num_gpus=GPUS[column],
    )


def recompute(column, tokens):
    hourly = H100.usd_per_hour.value * GPUS[column]
    return formulas.recompute_usd_per_mtok(usd_per_hour=hourly, tokens_per_s=speed(column, tokens))


def size(column):
    return load_model(MODELS[column]).bytes_per_token()


def break_even(column, tokens):
    return formulas.break_even_bytes_per_s(bytes_per_token=size(column), tokens_per_s=speed(column, tokens))


def drive(column):
    nvme = HARDWARE.medium("nvme-rented")
    return formulas.drive_usd_per_mtok(
        bytes_per_token=size(column),
        read_bytes_per_s=nvme.read_bytes_per_s.value,
        device_usd_per_hour=nvme.device_usd_per_hour.value,
    )


def stall(column):
    return formulas.stall_usd_per_mtok(
        bytes_per_token=size(column),
        read_bytes_per_s=7e9 * GPUS[column],
        gpu_usd_per_hour=H100.usd_per_hour.value * GPUS[column],
    )


def occupancy(column):
    return formulas.occupancy_usd_per_mtok(
        bytes_per_token=size(column), request_s=10, hbm_usd_per_gb_hour=H100.hbm_rent_usd_per_gb_hour.value
    )


def wear(column, medium):
    owned = HARDWARE.medium(medium)
    per_gb = keeping.wear_usd_per_gb(
        usd_per_gb=owned.price_usd_per_gb.value,
        write_amplification=1,
        dwpd=owned.endurance_dwpd.value,
        years=owned.life_years.value,
    )
    assert per_gb == pytest.approx(owned.wear_usd_per_gb.value)
    return per_gb * size(column) / 1e3


def recompute_kj(column):
    power = H100.power_w.value * GPUS[column]
    return formulas.recompute_kj_per_mtok(power_w=power, tokens_per_s=speed(column, K8))


def read_kj(column):
    power = HARDWARE.medium("nvme-rented").power_w.value
    return formulas.read_kj_per_mtok(power_w=power, bytes_per_token=size(column), read_bytes_per_s=7e9)


def share(column, tokens, *, stalled=False):
    return 100 * formulas.hit_share(
        recompute_usd_per_mtok=recompute(column, tokens),
        drive_usd_per_mtok=drive(column),
        occupancy_usd_per_mtok=occupancy(column),
        stall_usd_per_mtok=stall(column) if stalled else 0,
    )


CELLS = [
    (lambda c: speed(c, K8), "27200", "26100", "28700"),
    (lambda c: recompute(c, K8), "0.0256", "0.213", "0.194"),
    (lambda c: recompute(c, K64), "0.0467", "0.319", "0.487"),
    (lambda c: size(c) / 1e3, "131", "328", "70"),
    (lambda c: break_even(c, K8) / 1e9, "3.6", "8.5", "2.0"),
    (lambda c: break_even(c, K64) / 1e9, "1.9", "5.7", "0.8"),
    (lambda c: 7e9 / break_even(c, K8), "1.97", "0.82", "3.5"),
    (lambda c: 7e9 / break_even(c, K64), "3.6", "1.2", "8.7"),
    (lambda c: 56e9 / break_even(c, K8), "15.7", "6.6", "27.8"),
    (lambda c: 56e9 / break_even(c, K64), "28.7", "9.8", "69.9"),
    (drive, "0.0043", "0.0106", "0.0023"),
    (stall, "0.0130", "0.0325", "0.0070"),
    (occupancy, "0.0114", "0.0284", "0.0061"),
    (lambda c: wear(c, "nvme-bought"), "0.0216", "0.0539", "0.0116"),
    (lambda c: wear(c, "nvme-bought-2024"), "0.0072", "0.0180", "0.0039"),
    (recompute_kj, "47", "392", "355"),
    (read_kj, "0.5", "1.2", "0.25"),
    (lambda c: share(c, K8), "61", "18", "4.3"),
    (lambda c: share(c, K8, stalled=True), "112", "34", "8.0"),
    (lambda c: share(c, K64), "34", "12", "1.7"),
    (lambda c: recompute(c, K64) / recompute(c, K8), "1.8", "1.5", "2.5"),
]


@pytest.mark.parametrize("cell", [(row[0], column, row[1 + n]) for row in CELLS for n, column in enumerate(MODELS)])
def test_a_cell_of_the_example(cell):
    compute, column, printed = cell

    check(compute(column), printed)


#: Rent in USD/Mtok-h and the hold time at which it equals one recompute at 8 Ki tokens.
RENTS = {
    "hbm": ("4.10", "22 s", "10.2", "75 s", "2.20", "5.3 min"),
    "dram-rented": ("0.481", "3.2 min", "1.20", "10.6 min", "0.258", "45 min"),
    "dram-bought": ("0.045", "34 min", "0.112", "1.9 h", "0.024", "8.0 h"),
    "nvme-rented": ("0.0279", "55 min", "0.0697", "3.1 h", "0.0149", "12.9 h"),
    "nvme-bought": ("0.00090", "28 h", "0.0022", "95 h", "0.00048", "17 d"),
    "ebs-gp3": ("0.0144", "1.8 h", "0.036", "5.9 h", "0.0077", "25 h"),
    "s3-standard": ("0.0041", "6.2 h", "0.0103", "21 h", "0.0022", "3.6 d"),
}


@pytest.mark.parametrize("column", MODELS)
@pytest.mark.parametrize("medium", RENTS)
def test_rent_and_hold_time_of_a_medium(medium, column):
    per_gb = H100.hbm_rent_usd_per_gb_hour if medium == "hbm" else HARDWARE.medium(medium).rent
    rent = keeping.rent_usd_per_mtok_hour(bytes_per_token=size(column), usd_per_gb_hour=per_gb.value)
    hold = keeping.hold_s_of_one_recompute(recompute_usd_per_mtok=recompute(column, K8), rent_usd_per_mtok_hour=rent)

    first = 2 * list(MODELS).index(column)
    check(rent, RENTS[medium][first])
    check(hold, RENTS[medium][first + 1])


@pytest.mark.parametrize(("column", "printed"), [("8b", "1.0"), ("70b", "0.27"), ("v3", "0.06")])
def test_reuses_that_pay_for_the_wear(column, printed):
    reuses = keeping.least_reuses(
        wear_usd_per_mtok=wear(column, "nvme-bought"),
        recompute_usd_per_mtok=recompute(column, K8),
        hit_usd_per_mtok=drive(column),
    )

    check(reuses, printed)


# One tier over another, on one H100


def above(upper, lower, *, stalled, speed_above=55e9):
    nvme = HARDWARE.medium(lower) if lower != "dram-rented" else None
    read = 0.0 if nvme is None else nvme.device_usd_per_hour.value / 3600 / (nvme.read_bytes_per_s.value / 1e9)
    rent = H100.hbm_rent_usd_per_gb_hour if upper == "hbm" else HARDWARE.medium(upper).rent
    return keeping.hold_s_above(
        rent_above_usd_per_gb_hour=rent.value,
        rent_below_usd_per_gb_hour=HARDWARE.medium(lower).rent.value,
        read_below_usd_per_gb=read,
        bytes_per_s_above=speed_above,
        bytes_per_s_below=7e9 if nvme else 55e9,
        stalled_usd_per_hour=2.50 if stalled else 0.0,
    )


def test_rented_memory_over_a_rented_drive():
    check(above("dram-rented", "nvme-rented", stalled=False), "34 s")
    check(above("dram-rented", "nvme-rented", stalled=True, speed_above=50e9), "2.0 min")


def test_bought_memory_over_a_bought_drive():
    assert above("dram-bought", "nvme-bought", stalled=False) < 15
    check(above("dram-bought", "nvme-bought", stalled=True, speed_above=50e9), "15 min")


def test_the_gpus_own_memory_over_rented_memory():
    check(above("hbm", "dram-rented", stalled=True, speed_above=3.35e12), "1.6 s")


# The same from a derived profile, as the ledger and the simulator have it


@pytest.mark.parametrize("column", ["8b", "70b"])
@pytest.mark.parametrize("tokens", [K8, K64])
def test_a_derived_profile_computes_as_fast(column, tokens):
    profile = Profile.named("h100", MODELS[column], num_gpus=GPUS[column])

    assert tokens / profile.prefill_s(0, tokens) == pytest.approx(speed(column, tokens), rel=1e-3)


def test_a_derived_profile_takes_a_share_of_the_peak_of_ones_own():
    mfu = 32_200 * flop_per_token("v3", 4096) / (8 * H100.peak_bf16_flop_per_s.value)
    profile = derive_profile(Profile, "h100", "deepseek-v3", num_gpus=8, mfu=mfu)

    assert 4096 / profile.prefill_s(0, 4096) == pytest.approx(32_200, rel=1e-3)
    check(K8 / profile.prefill_s(0, K8), "28700")
