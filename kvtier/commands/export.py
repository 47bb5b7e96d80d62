"""``kvtier export``: chosen prefixes of a store as one file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kvtier.commands.output import add_json, say, write_json
from kvtier.commands.progress import shown
from kvtier.commands.sizes import at_least_one, human_bytes
from kvtier.doctor.reports import Choice, quiet
from kvtier.errors import ConfigError
from kvtier.hashing import token_array

HELP = "write chosen prefixes of a store to a bundle for another machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the store's; no process may have it open")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the file to make")
    which = parser.add_argument_group("which blocks, with all blocks before them; at least one of")
    which.add_argument("--tokens", metavar="FILE", help="prompts, one a line: token ids; - is standard input")
    which.add_argument(
        "--prefix", action="append", default=[], metavar="HEX", help="the prefix that ends with this block"
    )
    which.add_argument("--all", action="store_true", help="everything")
    parser.add_argument("--below", action="store_true", help="also all prompts that go on from there")
    parser.add_argument("--namespace", default="", metavar="HEX", help="only what belongs to this namespace")
    parser.add_argument("--limit", type=at_least_one, metavar="N", help="at most N blocks, the newest")
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="records to read at a time")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.doctor.carrying import export

    if not (args.tokens or args.prefix or args.all):
        raise ConfigError("say which blocks: --tokens FILE, --prefix HEX or --all")
    choice = Choice(
        prompts=_prompts(args.tokens) if args.tokens else (),
        prefixes=args.prefix,
        below=args.below,
        everything=args.all,
        namespace=args.namespace,
        limit_blocks=args.limit,
    )
    with shown("proved") as meter:
        done = export(args.directory, args.bundle, choice, threads=args.threads, progress=meter or quiet)
    lines = [f"{done.bundle}: {done.blocks:,} blocks of {len(done.namespaces)} namespaces, {human_bytes(done.bytes)}"]
    lines += [f"prompt {number}: {count:,} tokens held" for number, count in enumerate(done.prompt_tokens, start=1)]
    if done.damaged:
        lines.append(f"{done.damaged:,} blocks are damaged or behind damaged ones and were left out; run kvtier check")
    say("\n".join(lines), args.json)
    write_json(done.as_dict(), args.json)
    return 1 if done.damaged else 0


def _prompts(source: str) -> list[list[int]]:
    """Prompts from a file: a line is a JSON list, or numbers between spaces or commas."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--tokens: {source} cannot be read: {exc}") from exc
    prompts: list[list[int]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            ids = json.loads(line) if line.lstrip().startswith("[") else list(map(int, line.replace(",", " ").split()))
            prompts.append(token_array(ids).tolist())
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"--tokens: line {number} of {source} is no list of token ids: {exc}") from exc
    return prompts
