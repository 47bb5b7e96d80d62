"""The figures that docs/economics.md quotes, from kvtier.econ alone: ledgers, holding times, wear, prices.

    case      a model on a machine: 8B and 70B with GQA, DeepSeek-V3 with MLA, and a tiny model as the worst case
    media     rented, then bought

DeepSeek-V3 is put on eight H200, because its weights do not fit into eight H100; and its prefill speed is not the
data files' assumption but what DeepSeek reports of its own service, scaled by FLOP to other prompt lengths.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from kvtier.econ.billing.tariffs import tariffs
from kvtier.econ.derive import derive_profile
from kvtier.econ.figures import Figure
from kvtier.econ.formulas import break_even_bytes_per_s
from kvtier.econ.hardware import Accelerator, load_hardware
from kvtier.econ.ledger import Ledger, Row, make_ledger
from kvtier.econ.models import load_model, model_from_config
from kvtier.econ.prices import ListPrice
from kvtier.econ.profile import Profile
from kvtier.errors import ProfileError

LENGTHS = (8192, 65536)
HITS = (1, 10)
HOLDS_S = (300.0, 3600.0)
REQUEST_S = 10.0
REQUESTS_S = (1.0, 10.0, 60.0)
MEDIA = {"rented": ("dram-rented", "nvme-rented"), "bought": ("dram-bought", "nvme-bought")}
REMOTE = ("ebs-gp3", "s3-standard")
DRIVES = ("nvme-bought", "nvme-bought-2024", "qlc-bought")
CURVE_TOKENS = tuple(1024 * 2**step for step in range(11))

#: DeepSeek-V3/R1 inference system overview, March 2025: a node of eight H800 takes in 73,700 prompt tokens a
#: second, of which 56.3 % hit the cache; the mean length is not given, prompts of about 4 Ki tokens are assumed.
REPORTED_TOKENS_PER_S, REPORTED_HIT_SHARE, REPORTED_TOKENS, REPORTED_GPUS = 73_700, 0.563, 4096, 8

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model on a machine."""

    name: str
    label: str
    model: str
    gpu: str
    num_gpus: int

    @property
    def machine(self) -> str:
        """As tables have it."""
        return f"{self.num_gpus} x {self.gpu.upper()}"


CASES = (
    Case(name="8b", label="Llama-3.1-8B (GQA)", model="llama-3.1-8b", gpu="h100", num_gpus=1),
    Case(name="70b", label="Llama-3.1-70B (GQA)", model="llama-3.1-70b", gpu="h100", num_gpus=8),
    Case(name="v3", label="DeepSeek-V3 (MLA)", model="deepseek-v3", gpu="h200", num_gpus=8),
    Case(name="tiny", label="SmolLM2-135M (GQA)", model="smollm2-135m", gpu="h100", num_gpus=1),
)
CASE = {case.name: case for case in CASES}


def setting() -> Json:
    """What all ledgers have in common."""
    return {"lengths": LENGTHS, "hits": HITS, "holds_s": HOLDS_S, "request_s": REQUEST_S}


@cache
def profile(case: Case, media: Sequence[str] = MEDIA["rented"], drives: int | None = None) -> Profile:
    """What the data files and, for DeepSeek-V3, its maker say that a case can do."""
    gpu = load_hardware().accelerator(case.gpu)
    if case.name == "v3":
        gpu = replace(gpu, mfu=reported_mfu(gpu))
    return derive_profile(Profile, gpu, case.model, media=media, num_gpus=case.num_gpus, drives=drives)


def mfu_band() -> tuple[float, float, float]:
    """The assumed share of the peak, and the band it is in."""
    middle, low, high = (load_hardware().accelerator("h100").mfu.band[n] for n in (1, 0, 2))
    return middle, low, high


def reported_mfu(gpu: Accelerator) -> Figure:
    """The share of the bf16 peak that DeepSeek's reported prefill speed comes to."""
    computed = REPORTED_TOKENS_PER_S * (1 - REPORTED_HIT_SHARE) / REPORTED_GPUS
    flop_per_token = load_model("deepseek-v3").prefill_flops(0, REPORTED_TOKENS) / REPORTED_TOKENS
    return Figure(
        value=computed * flop_per_token / gpu.peak_bf16_flop_per_s.value,
        unit="ratio",
        source=f"DeepSeek-V3/R1 inference system overview: {REPORTED_TOKENS_PER_S:,} tokens/s a node of "
        f"{REPORTED_GPUS} H800, {REPORTED_HIT_SHARE:.1%} of them hits; mean length of {REPORTED_TOKENS:,} assumed",
        date="2025-03",
        kind="assumed",
    )


def ledger(case: Case, media: str = "rented", lengths: Iterable[int] = LENGTHS) -> Ledger:
    """The ledger of one case."""
    return make_ledger(
        profile(case, MEDIA[media]),
        prompt_tokens=tuple(lengths),
        reuses=HITS,
        holds_s=HOLDS_S,
        request_s=REQUEST_S,
    )


def case_facts(case: Case) -> Json:
    """Size of the model, its KV, and the speed at which loading ties with computing."""
    model, at = load_model(case.model), profile(case)
    one = profile(case, drives=1)
    speeds = {n: n / at.prefill_s(0, n) for n in LENGTHS}
    return {
        "case": case.name,
        "label": case.label,
        "machine": case.machine,
        "total_params": model.total_params,
        "active_params": model.active_params,
        "bytes_per_token": at.bytes_per_token,
        "flop_per_kv_byte": model.flop_per_kv_byte(),
        "mfu": at.inputs["mfu"].value,
        "tokens_per_s": speeds,
        "break_even_gb_per_s": {
            n: break_even_bytes_per_s(bytes_per_token=at.bytes_per_token, tokens_per_s=speed) / 1e9
            for n, speed in speeds.items()
        },
        "drives": case.num_gpus,
        "speed_up_one_drive": {n: one.prefill_s(0, n) / one.load_s("disk", n) for n in LENGTHS},
        "speed_up_all_drives": {n: at.prefill_s(0, n) / at.load_s("disk", n) for n in LENGTHS},
        "speed_up_host": {n: at.prefill_s(0, n) / at.load_s("host", n) for n in LENGTHS},
        "load_s": {tier: {n: at.load_s(tier, n) for n in LENGTHS} for tier in ("host", "disk")},
        "prefill_s": {n: at.prefill_s(0, n) for n in LENGTHS},
    }


def ledger_rows(case: Case, media: str) -> list[Json]:
    """The rows of one case's ledger, without what the page has no use for."""
    dropped = {"saves_lo_usd", "extrapolated"}
    return [
        {
            "case": case.name,
            "media": media,
            **{name: value for name, value in row.as_dict().items() if name not in dropped},
        }
        for row in ledger(case, media).rows
    ]


def hold_rows(case: Case) -> list[Json]:
    """How long each medium is worth its rent: device, host and disk rented and bought, and two remote ones."""
    found = [
        (media, hold)
        for media in MEDIA
        for hold in ledger(case, media).holds
        if hold.tier != "device" or media == "rented"
    ]
    for medium in REMOTE:
        remote = make_ledger(profile(case, (*MEDIA["rented"], medium)), prompt_tokens=LENGTHS, tiers=["remote"])
        found += [("rented", hold) for hold in remote.holds]
    return [{"case": case.name, "media": media, **asdict(hold)} for media, hold in found]


def one_row(case: Case, tier: str, tokens: int, *, hits: int, hold_s: float, media: str = "rented") -> Row:
    """A single row of a ledger."""
    at = profile(case, MEDIA[media])
    (row,) = make_ledger(
        at, prompt_tokens=[tokens], reuses=[hits], holds_s=[hold_s], tiers=[tier], request_s=REQUEST_S
    ).rows
    return row


def curve(case: Case) -> list[Json]:
    """The share of a miss by prompt length: ten hits within five minutes in DRAM, within an hour on a drive."""
    places = (("host", 300.0), ("disk", 3600.0))
    return [
        {"case": case.name, "tier": tier, "hold_s": hold_s, "hits": 10, "prompt_tokens": n, "share": row.share}
        for tier, hold_s in places
        for n in CURVE_TOKENS
        for row in [one_row(case, tier, n, hits=10, hold_s=hold_s)]
    ]


def tenth_tokens(case: Case) -> int:
    """The shortest prompt at which a hit in DRAM costs no more than a tenth of a miss, if ten come in five minutes."""
    low, high = 1, CURVE_TOKENS[-1]
    while low < high:
        middle = (low + high) // 2
        if one_row(case, "host", middle, hits=10, hold_s=300.0).share > 0.1:
            low = middle + 1
        else:
            high = middle
    return low


def request_shares(case: Case) -> Json:
    """The share of a miss by how long a request holds its memory: the figure of a ledger that is a guess."""
    shares = {
        seconds: make_ledger(
            profile(case), prompt_tokens=[8192], reuses=[10], holds_s=[300.0], tiers=["host"], request_s=seconds
        )
        .rows[0]
        .share
        for seconds in REQUESTS_S
    }
    return {"case": case.name, "label": case.label, "share": shares}


def attention() -> list[Json]:
    """One model's layers with other attentions: what only the bytes of a token change."""
    shipped = files("kvtier.econ") / "data" / "models" / "llama-3.1-70b.json"
    config: Mapping[str, Any] = json.loads(shipped.read_text())["config"]
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    kinds: dict[str, tuple[Mapping[str, Any], str]] = {
        "MHA, 64 KV heads": ({"num_key_value_heads": 64}, "bfloat16"),
        "GQA, 8 KV heads": ({}, "bfloat16"),
        "GQA, 8 KV heads, fp8": ({}, "fp8"),
        "MLA, 512 + 64": (latent, "bfloat16"),
    }
    return [_attention_row(kind, {**config, **changes}, dtype) for kind, (changes, dtype) in kinds.items()]


def _attention_row(kind: str, config: Mapping[str, Any], dtype: str) -> Json:
    model = model_from_config(config, name=kind, source="config.json of Llama-3.1-70B, changed", date="2024-07")
    at = derive_profile(Profile, "h100", model, num_gpus=8, kv_dtype=dtype)
    made = make_ledger(at, prompt_tokens=[8192], reuses=[10], holds_s=[3600.0], request_s=REQUEST_S)
    holds = {hold.tier: hold for hold in made.holds}
    (disk,) = (row for row in made.rows if row.tier == "disk")
    return {
        "attention": kind,
        "total_params": model.total_params,
        "bytes_per_token": at.bytes_per_token,
        "flop_per_kv_byte": model.flop_per_kv_byte(dtype),
        "break_even_gb_per_s": at.bytes_per_token * 8192 / at.prefill_s(0, 8192) / 1e9,
        "hold_s": {tier: hold.recompute_s for tier, hold in holds.items()},
        "share": disk.share,
    }


def amplification(results: Path) -> Figure:
    """Write amplification of the disk tier: measured where a committed profile has it, assumed otherwise."""
    measured: list[Figure] = []
    for path in sorted(results.glob("*profile*.json")):
        try:
            disk = Profile.load(path).tiers.get("disk")
        except ProfileError:
            continue
        if disk is not None and disk.write_amplification.kind == "measured":
            measured.append(disk.write_amplification)
    if measured:  # of several machines the one that writes most
        return max(measured, key=lambda figure: figure.value)
    return profile(CASE["8b"]).tier("disk").write_amplification


def wear(results: Path) -> Json:
    """What writing takes off a drive, and how many hits must be expected of what is written."""
    factor = amplification(results)
    return {"write_amplification": factor.as_dict(), "rows": [_wear(c, m, factor) for c in CASES for m in DRIVES]}


def _wear(case: Case, medium: str, factor: Figure) -> Json:
    plain = profile(case, ("dram-rented", medium))
    disk = replace(plain.tier("disk"), write_amplification=factor)
    at = replace(plain, tiers={**plain.tiers, "disk": disk})
    hardware = load_hardware().medium(medium)
    assert hardware.endurance_dwpd is not None
    assert hardware.device_bytes is not None
    assert hardware.price_usd_per_gb is not None
    made = make_ledger(at, prompt_tokens=LENGTHS, tiers=["disk"], request_s=REQUEST_S)
    day_bytes = hardware.endurance_dwpd.value * hardware.device_bytes.value * case.num_gpus / factor.value
    return {
        "case": case.name,
        "medium": medium,
        "usd_per_gb": hardware.price_usd_per_gb.value,
        "dwpd": hardware.endurance_dwpd.value,
        "wear_usd_per_mtok": at.wear_usd("disk", at.prefix_bytes(10**6)),
        "least_hits": {hold.prompt_tokens: _finite(hold.least_reuses) for hold in made.holds},
        "free_days": 1 / hardware.endurance_dwpd.value,
        "rated_day_s": day_bytes / (at.prefix_bytes(8192) / at.prefill_s(0, 8192)),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def measured(results: Path) -> Json:
    """The tiny model on a plain processor, as ``reload_vs_prefill.py`` measured it."""
    report = json.loads((results / "reload_vs_prefill.json").read_text())
    longest = max(row["prompt_tokens"] for row in report["rows"])
    speed_ups = {row["path"]: row["speedup"] for row in report["rows"] if row["prompt_tokens"] == longest}
    about = report["conditions"]
    return {
        "model": about["model"],
        "cpu": about["cpu"],
        "cores": about["cores"],
        "date": about["date_utc"][:10],
        "prompt_tokens": longest,
        "speed_ups": speed_ups,
    }


#: What ``hardware.derived`` says of how a figure follows from its source.
_DERIVED = re.compile(r"; (\d+ (GPUs|drives|links)|over [\d.]+ [^;]*|for \d+ GB|a copy within [^;]*)$")


def inputs(prices: Iterable[ListPrice], results: Path) -> list[Json]:
    """Every figure that went in, those of one source together, and what follows from them by arithmetic."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for case in CASES:
        for media in (*MEDIA.values(), *(("dram-rented", medium) for medium in DRIVES), *((r,) for r in REMOTE)):
            for name, figure in profile(case, media).figures().items():
                _note(found, figure, f"{name.split('.')[-1]} {figure.value:.4g} {figure.unit}")
    for price in prices:
        for name in ("input", "cached_read", "read_share", "write", "write_long", "storage"):
            figure = getattr(price, name)
            if figure is not None:
                _note(found, figure, f"list price: {name}")
    own = load_hardware().accelerator("h800").usd_per_hour
    _note(found, own, f"gpu_usd_per_hour {own.value:.4g} {own.unit}")
    for tariff in tariffs():
        for source in tariff.sources:
            found.setdefault((source.title, source.date, "given"), ["rules of bills"])
    at = measured(results)
    machine = f"benchmarks/reload_vs_prefill.py on {at['cpu']}, {at['cores']} cores"
    found[machine, at["date"], "measured"] = ["SmolLM2-135M, loaded and computed"]
    chosen = ("settings of this page", "2026-11", "assumed")
    found[chosen] = [f"request_s {REQUEST_S:g}", f"hits {max(HITS)}", *(f"hold_s {hold:g}" for hold in HOLDS_S)]
    order = ("measured", "given", "assumed")
    return [
        {"kind": kind, "source": source, "date": date, "figures": names}
        for (source, date, kind), names in sorted(found.items(), key=lambda item: (order.index(item[0][2]), item[0]))
    ]


def _note(found: dict[tuple[str, str, str], list[str]], figure: Figure, text: str) -> None:
    source = figure.source
    while _DERIVED.search(source):
        source = _DERIVED.sub("", source)
    names = found.setdefault((source, figure.date, figure.kind), [])
    if text not in names:
        names.append(text)
