"""``kvtier oracle``: the same prompts cold and through every tier, compared bit for bit."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kvtier.commands.output import add_json, say, table, write_json
from kvtier.errors import ConfigError

if TYPE_CHECKING:
    from kvtier.oracle.trial import Row

HELP = "ask a model the same prompts cold and through every tier, and compare tokens and logits bit for bit"

_NOTE = """With chunks every mode must equal the model without a store, bit for bit; without them (--chunk-tokens 0)
the same split of the prompt without a store. Exit status 1 if a bit differs, or if a mode could not be tried."""

_HEAD = ("mode", "prompts", "blocks by tier", "tokens equal", "max logit difference", "wrong blocks", "verdict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.epilog = _NOTE
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="directory of a transformers causal LM, such as a downloaded SmolLM2 (default: a tiny random Llama)",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")
    parser.add_argument("--on", metavar="DEVICE", default="cpu", help="where the model is, such as cuda (default: cpu)")
    parser.add_argument("--prompts", type=int, default=4, metavar="N", help="prompts a mode (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="tokens a prompt (default: %(default)s)")
    parser.add_argument(
        "--new-tokens", type=int, default=8, metavar="N", help="tokens decoded after each (default: %(default)s)"
    )
    parser.add_argument(
        "--block-tokens", type=int, default=16, metavar="N", help="tokens a block (default: %(default)s)"
    )
    parser.add_argument(
        "--chunk-tokens",
        type=int,
        default=32,
        metavar="N",
        help="compute in pieces that end at multiples of N; 0 for no such pieces (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of prompts, damage and the random model")
    parser.add_argument(
        "--directory", metavar="DIR", help="where stores are made and removed again; put it on the disk"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    if find_spec("transformers") is None:
        raise ConfigError("the oracle needs transformers: pip install 'kvtier[transformers]'")
    from kvtier.oracle.models import ModelSource
    from kvtier.oracle.run import consult
    from kvtier.oracle.trial import Settings

    settings = Settings(
        prompts=args.prompts,
        tokens=args.tokens,
        new_tokens=args.new_tokens,
        block_tokens=args.block_tokens,
        chunk_tokens=args.chunk_tokens or None,
        seed=args.seed,
    )
    source = ModelSource(directory=args.model, dtype=args.dtype, device=args.on, seed=args.seed)
    try:
        place = tempfile.TemporaryDirectory(prefix="kvtier-oracle-", dir=args.directory)
    except OSError as exc:
        raise ConfigError(f"--directory: nothing can be made in {args.directory!r}: {exc.strerror}") from exc
    with place as name:
        rows = consult(source, settings, Path(name), say=lambda text: print(text, file=sys.stderr, flush=True))

    ok = all(row.verdict == "exact" for row in rows)
    say(f"{source.label}, {args.dtype} on {args.on}, {args.tokens} tokens, chunks of {args.chunk_tokens}", args.json)
    say(table(_HEAD, [_cells(row) for row in rows]), args.json)
    for row in rows:
        if row.untried:
            say(f"{row.mode}: {row.untried}", args.json)
    say("every mode is exact" if ok else "NOT every mode is exact", args.json)
    about = {"model": source.label, "dtype": args.dtype, "device": args.on, "settings": asdict(settings)}
    write_json({"ok": ok, **about, "rows": [_as_json(row) for row in rows]}, args.json)
    return 0 if ok else 1


def _cells(row: Row) -> tuple[str, ...]:
    blocks = ", ".join(f"{tier} {count}" for tier, count in row.blocks.items()) or "-"
    equal = f"{row.tokens_equal} of {row.prompts}"
    return (
        row.mode,
        str(row.prompts),
        blocks,
        equal,
        f"{row.max_logit_difference:g}",
        str(row.wrong_blocks),
        row.verdict,
    )


def _as_json(row: Row) -> dict[str, object]:
    far = row.max_logit_difference if math.isfinite(row.max_logit_difference) else "inf"  # JSON has no infinity
    return asdict(row) | {"max_logit_difference": far, "verdict": row.verdict}
