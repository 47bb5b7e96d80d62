"""``kvtier calibrate``: what this machine does with a model, kept as a profile."""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtier.commands.durations import duration_s
from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.sizes import at_least_one
from kvtier.econ.profile_json import to_json
from kvtier.errors import ConfigError, UnsupportedModelError

if TYPE_CHECKING:
    from kvtier.calibrate.run import Calibration
    from kvtier.calibrate.settings import Settings
    from kvtier.econ.figures import Figure
    from kvtier.econ.hardware import Hardware
    from kvtier.econ.profile import Profile

HELP = "measure prefill and tiers of this machine with a model, and keep them as a profile for simulate and cost"

_NOTE = """Every figure is the median of interleaved runs with a band that holds the true median in nine cases of
ten or more, and is labelled measured, given or assumed. Nothing is left in --directory."""

_TINY = "NO MODEL GIVEN: a tiny random Llama is measured, whose prefill says nothing about a large model; give --model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.epilog = _NOTE
    parser.add_argument(
        "--model", metavar="DIR", help="directory of a transformers causal LM; default: a tiny random one"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")
    parser.add_argument("--on", metavar="DEVICE", default="cpu", help="where it computes, such as cuda; default: cpu")
    parser.add_argument("--block-tokens", type=at_least_one, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument("--chunk-tokens", type=at_least_one, metavar="N", help="compute in pieces; default: in one")
    parser.add_argument("--budget", type=duration_s, default=90.0, metavar="T", help="about so long; default: 90s")
    parser.add_argument(
        "--lengths", type=_lengths, metavar="N,...", help="prompt tokens, as the budget allows; 64 to 4096"
    )
    parser.add_argument("--runs", type=at_least_one, default=5, metavar="N", help="for each figure; 5 or more")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="on the disk to be measured; default: the cache's"
    )
    parser.add_argument("--machine-price", type=float, metavar="USD", help="of an hour of the machine")
    parser.add_argument("--medium", action="append", metavar="NAME", help="of the host or disk tier, for rent and wear")
    parser.add_argument("--hardware-file", type=Path, metavar="FILE", help="TOML with prices of your own")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: profiles/MODEL.json in the cache directory")
    add_json(parser)


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(sorted({at_least_one(part) for part in text.split(",")}))


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.calibrate.places import cache_dir, profile_name

    settings = _settings(args)
    hardware = _hardware(args)
    if find_spec("transformers") is None:
        raise ConfigError("calibrating needs transformers: pip install 'kvtier[transformers]'")
    with _scratch(args.directory or _made(cache_dir())) as name:
        found = _calibrated(args, settings, hardware, Path(name))
    out = args.out or _made(cache_dir() / "profiles") / profile_name(found.profile.model)
    found.profile.save(out)
    say(_text(found, tiny=args.model is None), args.json)
    say(f"\nprofile: {out}", args.json)
    write_json(_as_json(found, out), args.json)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    """What was asked for, as far as it can be judged before anything is loaded."""
    from kvtier.calibrate.settings import LENGTHS, Settings

    if args.out is not None and not (args.out.absolute().parent.is_dir() and not args.out.is_dir()):
        raise ConfigError(f"--out: {str(args.out)!r} is not a file in a directory that exists")
    if args.out is not None and not os.access(args.out.absolute().parent, os.W_OK):
        raise ConfigError(f"--out: {str(args.out)!r} cannot be written: its directory is read-only")
    if args.machine_price is not None and not 0 <= args.machine_price < math.inf:
        raise ConfigError(f"--machine-price: expected USD an hour, 0 or more, got {args.machine_price}")
    return Settings(budget_s=args.budget, lengths=args.lengths or LENGTHS, runs=args.runs)


def _hardware(args: argparse.Namespace) -> Hardware:
    from kvtier.econ.hardware import load_hardware

    hardware = load_hardware(args.hardware_file)
    for name in args.medium or ():
        hardware.medium(name)
    return hardware


def _calibrated(args: argparse.Namespace, settings: Settings, hardware: Hardware, place: Path) -> Calibration:
    from kvtier.calibrate.prices import price_machine
    from kvtier.calibrate.run import calibrate
    from kvtier.calibrate.subject import Subject
    from kvtier.oracle.models import ModelSource

    source = ModelSource(directory=args.model, dtype=args.dtype, device=args.on)
    _progress(_TINY if args.model is None else f"loading {source.label}")
    try:
        subject = Subject.load(source, block_tokens=args.block_tokens, chunk_tokens=args.chunk_tokens)
    except UnsupportedModelError as exc:
        raise ConfigError(f"--model: {exc}") from exc
    priced = price_machine(
        hardware,
        gpu=subject.gpu,
        gpu_bytes=subject.gpu_bytes,
        cores=len(os.sched_getaffinity(0)),
        machine_usd_per_hour=args.machine_price,
        media=args.medium,
    )
    settings = settings.within(subject.max_tokens, asked=args.lengths is not None)
    return calibrate(subject, priced, settings, place, say=_progress)


def _scratch(directory: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="kvtier-calibrate-", dir=directory)
    except OSError as exc:
        raise ConfigError(f"--directory: nothing can be made in {str(directory)!r}: {exc.strerror}") from exc


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{directory}: cannot be made: {exc.strerror}; KVTIER_CACHE names another place") from exc
    return directory


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _text(found: Calibration, *, tiny: bool) -> str:
    profile = found.profile
    parts = [
        f"{profile.name}: {profile.bytes_per_token:,} bytes of KV per token in {profile.kv_dtype}",
        _prefill_text(profile),
        _tiers_text(found),
        _inputs_text(profile),
        "\n".join(f"note: {line}" for line in [*found.notes, *([_TINY] if tiny else [])]),
    ]
    parts[0] += f"\n{profile.machine}\n{profile.source}, {profile.date}"
    return "\n\n".join(part for part in parts if part)


def _prefill_text(profile: Profile) -> str:
    rows = [
        (
            f"{point.tokens:,}",
            f"{point.mid * 1e3:,.1f}",
            f"{point.lo * 1e3:,.1f} to {point.hi * 1e3:,.1f}",
            f"{point.tokens / point.mid:,.0f}",
            f"{point.tokens / point.hi:,.0f} to {point.tokens / point.lo:,.0f}",
        )
        for point in profile.prefill
    ]
    return "prefill\n" + table(("tokens", "ms", "band", "tokens/s", "band"), rows)


def _tiers_text(found: Calibration) -> str:
    head = ("tier", "op", "GB/s", "band", "raw limit", "share of it", "band", "latency")
    rows = []
    for name, samples in found.samples.items():
        tier = found.profile.tiers[name]
        for op, speed, raw, share, wait in (
            ("read", tier.read_bytes_per_s, tier.raw_read_bytes_per_s, samples.read_share, tier.latency_s),
            ("write", tier.write_bytes_per_s, tier.raw_write_bytes_per_s, samples.write_share, None),
        ):
            lo, mid, hi = (value / 1e9 for value in speed.band)
            rows.append(
                (
                    name,
                    op,
                    f"{mid:.2f}",
                    f"{lo:.2f} to {hi:.2f}",
                    "-" if raw is None else f"{raw.value / 1e9:.2f}",
                    f"{share.mid:.2f}",
                    f"{share.lo:.2f} to {share.hi:.2f}",
                    "-" if wait is None else f"{wait.value * 1e3:.2f} ms",
                )
            )
    return "tiers, disk cold\n" + table(head, rows)


def _inputs_text(profile: Profile) -> str:
    """Every figure that is not in the tables above, with its source."""
    shown = ("bytes_per_s", "latency_s")
    rows = [
        (name, f"{figure.value:.4g} {figure.unit}", _band(figure), figure.kind, figure.date, figure.source)
        for name, figure in profile.figures().items()
        if not name.endswith(shown)
    ]
    return "figures\n" + table(("", "", "band", "kind", "date", "source"), rows).lstrip("\n")


def _band(figure: Figure) -> str:
    return "-" if figure.lo is None or figure.hi is None else f"{figure.lo:.4g} to {figure.hi:.4g}"


def _as_json(found: Calibration, out: Path) -> dict[str, Any]:
    return {
        "profile": to_json(found.profile),
        "out": str(out),
        "notes": list(found.notes),
        "samples": {name: asdict(samples) for name, samples in found.samples.items()},
        "shares": {
            name: {"read": samples.read_share._asdict(), "write": samples.write_share._asdict()}
            for name, samples in found.samples.items()
        },
    }
