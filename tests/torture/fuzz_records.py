"""Coverage-guided fuzzing of everything that reads bytes which others wrote.

    python -m torture.fuzz_records record --runs 100000 --seconds 20
    python -m torture.fuzz_records record --input crash-file

Atheris drives libFuzzer over kvtier's modules, which it instruments while they are imported; where
it is not installed, the seeds are mutated at random, without guidance. Both begin with the seeds in
``torture.fuzz_targets`` and print how many runs there were, as libFuzzer does.

Source: Atheris, https://github.com/google/atheris; libFuzzer, https://llvm.org/docs/LibFuzzer.html.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MAX_BYTES = 8192

Check = Callable[[bytes], None]
"""As in ``torture.fuzz_targets``, which must not be imported before its imports can be instrumented."""


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with a few bytes changed, cut out, repeated, or taken from another seed."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 16)]
            case 3:
                other = rng.choice(seeds)
                begin = rng.randint(0, len(other))
                data[at:] = other[begin:]
            case _ if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
    return bytes(data[:MAX_BYTES])


def unguided(check: Check, seeds: Sequence[bytes], *, runs: int, seconds: float, seed: int) -> int:
    """Seeds, then mutations of them; how many there were. Raises what the check raises, with the input."""
    rng, until = random.Random(seed), time.monotonic() + seconds
    done = 0
    while done < runs and (done < len(seeds) or time.monotonic() < until):
        data = seeds[done] if done < len(seeds) else mutated(rng, seeds)
        try:
            check(data)
        except BaseException as exc:
            exc.add_note(f"input: {data.hex()}")
            raise
        done += 1
    return done


def guided(atheris: Any, check: Check, seeds: Sequence[bytes], *, runs: int, seconds: float, seed: int) -> None:
    """Hand over to libFuzzer, which ends the process."""
    with tempfile.TemporaryDirectory(prefix="kvtier-corpus-") as corpus:
        for number, data in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(data)
        options = {"runs": runs, "max_total_time": max(1, int(seconds)), "seed": seed + 1, "max_len": MAX_BYTES}
        options |= {"artifact_prefix": f"{tempfile.gettempdir()}/kvtier-fuzz-", "print_final_stats": 1}
        atheris.Setup([sys.argv[0], corpus, *(f"-{name}={value}" for name, value in options.items())], check)
        atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(prog="torture.fuzz_records", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", help="a name in torture.fuzz_targets.TARGETS")
    parser.add_argument("--runs", type=int, default=100_000, metavar="N", help="at most (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--unguided", action="store_true", help="mutate at random even where Atheris is installed")
    parser.add_argument("--input", type=Path, metavar="FILE", help="only run this input again")
    args = parser.parse_args(argv)
    atheris: Any = None
    if not args.unguided and args.input is None and find_spec("atheris"):
        import atheris
    with nullcontext() if atheris is None else atheris.instrument_imports(include=["kvtier"]):
        from torture.fuzz_targets import TARGETS

        if args.target not in TARGETS:
            parser.error(f"no target {args.target!r}; there are {', '.join(TARGETS)}")
        check, make_seeds = TARGETS[args.target]
        seeds = make_seeds()  # within: some import more of kvtier
    if args.input is not None:
        check(args.input.read_bytes())
    elif atheris is not None:
        guided(atheris, check, seeds, runs=args.runs, seconds=args.seconds, seed=args.seed)
    else:
        began = time.monotonic()
        runs = unguided(check, seeds, runs=args.runs, seconds=args.seconds, seed=args.seed)
        sys.stderr.write(f"Done {runs} runs in {time.monotonic() - began:.0f} second(s), unguided\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
