"""``kvtier inspect``: what a store holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.sizes import at_least_one, bars, human_bytes
from kvtier.doctor.reports import Inspection, Prefix, Space

HELP = "show what a store holds: namespaces, sizes, ages, depths, longest chains, top prefixes"

_TEXT_CHARS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the store's")
    parser.add_argument(
        "--top", type=at_least_one, default=5, metavar="N", help="prefixes to name (default: %(default)s)"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="directory with a tokenizer.json, to show text instead of token ids",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.doctor.inspecting import inspect, tokenizer_decoder

    decode = None if args.tokenizer is None else tokenizer_decoder(args.tokenizer)
    found = inspect(args.directory, num_top=args.top, decode=decode)
    say(_text(found), args.json)
    write_json(found.as_dict(), args.json)
    return 0


def _text(found: Inspection) -> str:
    parts = [
        f"{found.directory}" + (f" (in use by process {found.in_use_by})" if found.in_use_by else ""),
        _sizes(found),
        table(
            ("namespace", "blocks", "payload", "prompts", "of"),
            [(s.root[:12], f"{s.blocks:,}", human_bytes(s.bytes), f"{s.prompts:,}", _of(s)) for s in found.spaces],
        ),
        "age\n" + bars([(bar.label, bar.blocks) for bar in found.ages]),
        "depth, in blocks before it\n" + bars([(bar.label, bar.blocks) for bar in found.depths]),
        "longest chains\n" + _prefixes(found.longest, "blocks", [f"{p.blocks:,}" for p in found.longest]),
        "prefixes with most blocks below them\n" + _prefixes(found.top, "below", [f"{p.below:,}" for p in found.top]),
    ]
    return "\n\n".join(parts)


def _sizes(found: Inspection) -> str:
    orphans = f", {found.orphans:,} of them without their prefix" if found.orphans else ""
    free = found.slots - found.slots_used - found.slots_quarantined
    bad = f", {found.slots_quarantined:,} in quarantine" if found.slots_quarantined else ""
    rows = [
        ("blocks", f"{found.blocks:,} of {found.block_tokens} tokens, {human_bytes(found.block_bytes)}{orphans}"),
        ("room for", "unknown" if found.capacity_blocks is None else f"{found.capacity_blocks:,} blocks"),
        ("accounted", human_bytes(found.payload_bytes)),
        ("on disk", human_bytes(found.file_bytes)),
        ("slots", f"{found.slots_used:,} used, {free:,} free{bad}, {human_bytes(found.slot_bytes)} each"),
    ]
    return table(("", ""), rows).lstrip("\n")


def _of(space: Space) -> str:
    """What is known of a namespace, in a few words."""
    if space.about is None:
        return "unknown"
    about = {name: str(value) for name, value in space.about.items()}
    parts = [about.get(name, "")[: _TEXT_CHARS // 2] for name in ("weights", "adapter", "layout", "dtype")]
    return ", ".join([*filter(None, parts), *(["salted"] if about.get("salted") == "True" else [])])


def _prefixes(prefixes: list[Prefix], head: str, sizes: list[str]) -> str:
    rows = [(size, f"{p.tokens:,}", p.block[:12], _words(p)) for size, p in zip(sizes, prefixes, strict=True)]
    return table((head, "tokens", "last block", "begins"), rows)


def _words(prefix: Prefix) -> str:
    if prefix.text is None:
        return " ".join(map(str, prefix.first_ids)) + (" ..." if prefix.last_ids else "")
    first, _, last = " ".join(prefix.text.split()).partition(" ... ")
    return first[:_TEXT_CHARS] + (f" ... {last[-_TEXT_CHARS:]}" if last else "")
