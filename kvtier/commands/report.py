"""``kvtier report``: what a machine, a model and a trace come to, as one page for a person in a hurry."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtier.commands.cases import add_case_arguments, ledger_of
from kvtier.commands.cost import LENGTHS
from kvtier.commands.files import new_file
from kvtier.commands.output import add_json, say, write_json
from kvtier.commands.plots import check_plot
from kvtier.commands.profiles import profile_of
from kvtier.commands.replays import add_tier_arguments, replayed, settings_of
from kvtier.commands.traces import add_trace_arguments, trace_of, warn_of_skipped
from kvtier.econ.crossing import break_even_tokens, hit_band_s, lengths_known
from kvtier.econ.figures import Figure
from kvtier.econ.machine import machine_name, versions
from kvtier.errors import ConfigError

if TYPE_CHECKING:
    from kvtier.commands.replay_plot import History
    from kvtier.econ.ledger import Ledger
    from kvtier.econ.profile import Profile

HELP = "one page for this machine: what a cached token costs, saves and loses, from profile, benchmark, replay, ledger"

_SIZES = {"device": 16 << 30, "host": 64 << 30, "disk": 1 << 40, "remote": 16 << 40}
_SIZES_DATE = "2026-11"
_SHARE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.add_argument("--html", type=new_file, required=True, metavar="FILE", help="the page: one file, nothing else")
    parser.add_argument(
        "--reload", type=Path, metavar="FILE", help="JSON of benchmarks/reload_vs_prefill.py; left out if not given"
    )
    add_trace_arguments(parser, default="synthetic:chat")
    add_tier_arguments(parser)
    add_case_arguments(parser, "what the profile knows")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.commands.html import write_page
    from kvtier.commands.reloads import read_reload
    from kvtier.commands.replay_plot import History
    from kvtier.commands.report_page import page

    _check_outputs(args)
    profile = _profile(args)
    ledger = ledger_of(args, profile, _lengths(profile))
    reload = None if args.reload is None else read_reload(args.reload)
    trace = trace_of(args)
    sizes = _sizes(args, profile)
    args.tier = args.tier or [
        f"{name}={max(1, round(size.value) // (trace.block_tokens * profile.bytes_per_token))}"
        for name, size in sizes.items()
    ]
    settings = settings_of(args, trace.block_tokens * profile.bytes_per_token)
    history = History(settings, trace.block_tokens)
    replay = replayed(trace, settings, profile, history)
    result = _result(args, ledger, reload, replay, history, sizes)
    text = page(result, ledger, history)
    warn_of_skipped(trace)
    write_page(args.html, text)
    say(f"{result['answer']['words']}\n\n{args.html}", args.json)
    write_json(result, args.json)
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Find out before the work whether the page can be made."""
    check_plot(args.html, "--html")
    if args.json not in {None, "-"} and Path(args.json).resolve() == args.html.resolve():
        raise ConfigError(f"--html and --json: both are {args.json!r}; name two files")
    for path in (args.html, *([] if args.json in {None, "-"} else [Path(args.json)])):
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise ConfigError(f"{path}: cannot be written: permission denied")


def _profile(args: argparse.Namespace) -> Profile:
    """The profile that is named, or the one that was measured here."""
    if not (args.model or args.config or args.profile):
        args.profile = _only_profile()
    return profile_of(args)


def _only_profile() -> Path:
    from kvtier.calibrate.places import cache_dir

    folder = cache_dir() / "profiles"
    found = sorted(folder.glob("*.json"))
    if not found:
        raise ConfigError(
            f"no profile in {folder}: measure this machine with kvtier calibrate, or name a machine that is "
            "derived from data sheets, such as --model llama-3.1-8b --hardware h100"
        )
    if len(found) > 1:
        raise ConfigError(f"several profiles; say which with --profile: {', '.join(map(str, found))}")
    return found[0]


def _lengths(profile: Profile) -> tuple[int, ...]:
    """Prompt lengths of the ledger where nobody says others: none that a measured profile would have to guess."""
    longest = profile.prefill[-1].tokens
    return LENGTHS if longest >= max(LENGTHS) else tuple(sorted({max(1, longest // 4), longest}))


def _sizes(args: argparse.Namespace, profile: Profile) -> dict[str, Figure]:
    """Bytes of each tier of the replay; none where the command line says them."""
    if args.tier or args.capacity_blocks:
        return {}
    found = {name: _size(_SIZES[name], "no size was given; --tier says another") for name in profile.tiers}
    if profile.machine != machine_name():
        return found
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    here = {
        "host": _size(memory // _SHARE, "a quarter of this machine's memory; --tier says another"),
        "disk": _size(shutil.disk_usage(Path.home()).free // _SHARE, "a quarter of what is free; --tier says another"),
    }
    return {name: here.get(name, size) for name, size in found.items()}


def _size(num_bytes: int, source: str) -> Figure:
    return Figure(value=float(num_bytes), unit="bytes", source=source, date=_SIZES_DATE, kind="assumed")


def _result(
    args: argparse.Namespace,
    ledger: Ledger,
    reload: dict[str, Any] | None,
    replay: dict[str, Any],
    history: History,
    sizes: dict[str, Figure],
) -> dict[str, Any]:
    """All numbers of the page."""
    from kvtier.commands.report_answer import answer_of
    from kvtier.commands.report_inputs import inputs_of

    profile = ledger.profile
    calibration = calibration_of(profile)
    served = bool(replay["requests"])
    return {
        "command": shlex.join(["kvtier", *args.words]),
        "versions": {**versions(), "python": platform.python_version()},
        "answer": answer_of(ledger, calibration["break_even_tokens"], replay if served else None),
        "missing": _missing(profile, reload, served=served),
        "calibration": calibration,
        "reload": reload,
        "replay": {**replay, "tokens_by_source": history.tokens_by_source()} if served else None,
        "ledger": ledger.as_dict(),
        "inputs": inputs_of(args, ledger, reload, replay, sizes),
    }


def calibration_of(profile: Profile) -> dict[str, Any]:
    """Times by prompt length, break-even points and speeds beside raw limits; bands are (lo, value, hi)."""
    crossings = {tier: break_even_tokens(profile, tier) for tier in profile.tiers}
    return {
        "name": profile.name,
        "measured": profile.machine is not None,
        "longest_tokens": profile.prefill[-1].tokens,
        "break_even_tokens": crossings,
        "crossings": [
            {"tier": tier, "tokens": tokens, "hit_s": hit_band_s(profile, tier, tokens).mid}
            for tier, tokens in crossings.items()
            if tokens is not None
        ],
        "curve": [
            {
                "tokens": tokens,
                "recompute_s": list(profile.prefill_band_s(0, tokens)),
                "hit_s": {tier: list(hit_band_s(profile, tier, tokens)) for tier in profile.tiers},
            }
            for tokens in lengths_known(profile)
        ],
        "tiers": [
            {
                "tier": name,
                "medium": tier.medium,
                "read": _speed(tier.read_bytes_per_s, tier.raw_read_bytes_per_s),
                "write": _speed(tier.write_bytes_per_s, tier.raw_write_bytes_per_s),
                "kind": tier.read_bytes_per_s.kind,
            }
            for name, tier in profile.tiers.items()
        ],
    }


def _speed(figure: Figure, raw: Figure | None) -> dict[str, Any]:
    return {
        "speed": list(figure.band),
        "raw": None if raw is None else list(raw.band),
        "of_raw": None if raw is None else figure.value / raw.value,
    }


def _missing(profile: Profile, reload: dict[str, Any] | None, *, served: bool) -> list[str]:
    """What the page cannot show, and how it would."""
    parts = {
        "measurements of a machine: this profile is derived from data sheets; kvtier calibrate measures": (
            profile.machine is None
        ),
        "raw limits of the tiers: the profile has none; kvtier calibrate measures them": not any(
            tier.raw_read_bytes_per_s for tier in profile.tiers.values()
        ),
        "energy of a recompute: the power of the machine is not in the profile": profile.power_w is None,
        "the reload benchmark: python benchmarks/reload_vs_prefill.py --json FILE, then --reload FILE": reload is None,
        "the replay: the trace has no request": not served,
    }
    return [text for text, absent in parts.items() if absent]
