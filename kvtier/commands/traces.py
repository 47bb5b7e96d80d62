"""How every command that goes through a trace lets its user name one."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial

from kvtier.commands.sizes import at_least_one
from kvtier.sim.agentic import SESSION_INTERVAL_S
from kvtier.sim.lines import Skipped
from kvtier.sim.naming import trace_from
from kvtier.sim.plain import BYTES_PER_TOKEN
from kvtier.sim.reading import FORMATS, FileTrace, Limited
from kvtier.sim.trace import Trace


def add_trace_arguments(parser: argparse.ArgumentParser, *, several: bool = False, default: str | None = None) -> None:
    """Give a command its TRACE and what says how to read it; with a default it is an option, ``--trace``."""
    what = "a file, plain or gzip, or synthetic:NAME, such as synthetic:chat?requests=2000&seed=7"
    if default is None:
        parser.add_argument("trace", metavar="TRACE", nargs="+" if several else None, help=what)
    else:
        parser.add_argument("--trace", metavar="TRACE", default=default, help=f"{what} (default: %(default)s)")
    reading = parser.add_argument_group("reading the trace")
    reading.add_argument("--format", choices=tuple(FORMATS), help="of the file (default: as its first record shows)")
    reading.add_argument("--strict", action="store_true", help="refuse malformed lines instead of counting them")
    reading.add_argument(
        "--block-tokens", type=at_least_one, metavar="N", help="tokens in a block (default: the format's)"
    )
    reading.add_argument(
        "--session-interval",
        type=_seconds,
        default=SESSION_INTERVAL_S,
        metavar="S",
        help="agentic: seconds from the start of one session to that of the next (default: %(default)g)",
    )
    reading.add_argument(
        "--shared-prefix",
        action="store_true",
        help="agentic: tools and system prompt are common to all sessions (default: to none)",
    )
    reading.add_argument(
        "--bytes-per-token",
        type=float,
        default=BYTES_PER_TOKEN,
        metavar="N",
        help="texts: bytes of UTF-8 that count as a token (default: %(default)g)",
    )
    reading.add_argument("--limit", type=at_least_one, metavar="N", help="only the first N requests")


def trace_of(args: argparse.Namespace, argument: str | None = None) -> Trace:
    """The trace that the command line names; one of several is passed as ``argument``.

    Raises:
        TraceError: The file cannot be read.
        ConfigError: No such workload, parameter or format.
    """
    return trace_opener(args, argument)()


def trace_opener(args: argparse.Namespace, argument: str | None = None) -> Callable[[], Trace]:
    """What opens that trace; can be carried to another process."""
    return partial(
        trace_from,
        args.trace if argument is None else argument,
        format=args.format,
        strict=args.strict,
        block_tokens=args.block_tokens,
        session_interval_s=args.session_interval,
        shared_prefix=args.shared_prefix,
        bytes_per_token=args.bytes_per_token,
        limit=args.limit,
    )


def skipped_of(trace: Trace) -> Skipped | None:
    """What the latest reading passed over; None for a trace that is not read from a file."""
    source = trace.trace if isinstance(trace, Limited) else trace
    return source.skipped if isinstance(source, FileTrace) else None


def warn_of_skipped(trace: Trace) -> None:
    """Name on standard error the malformed lines that the latest reading passed over."""
    skipped = skipped_of(trace)
    if skipped is None or not skipped.count:
        return
    more = ["..."] if skipped.count > len(skipped.messages) else []
    said = [f"kvtier: {skipped.path}: {skipped.count:,} malformed lines passed over", *skipped.messages, *more]
    print("\n  ".join(said), file=sys.stderr)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds of at least 0")
    return value
