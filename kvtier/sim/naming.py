"""One way to name a trace: a file's path, or ``synthetic:`` and a workload with its parameters.

traces/conversation.jsonl.gz
synthetic:chat
synthetic:rag?requests=2000&seed=7
"""

from __future__ import annotations

import math

from kvtier.errors import ConfigError
from kvtier.sim.agentic import SESSION_INTERVAL_S
from kvtier.sim.plain import BYTES_PER_TOKEN
from kvtier.sim.reading import Limited, open_trace
from kvtier.sim.trace import Trace
from kvtier.sim.workloads import workload

SCHEME = "synthetic:"


def trace_from(
    argument: str,
    *,
    format: str | None = None,  # noqa: A002  (what users call it)
    strict: bool = False,
    block_tokens: int | None = None,
    session_interval_s: float = SESSION_INTERVAL_S,
    shared_prefix: bool = False,
    bytes_per_token: float = BYTES_PER_TOKEN,
    limit: int | None = None,
) -> Trace:
    """The trace that a command line or a script names.

    Args:
        argument: See the module. A file whose name begins with ``synthetic:`` is ``./synthetic:...``.
        format: See ``open_trace``, as the next five; of a synthetic trace only ``block_tokens`` is heeded.
        strict: See ``open_trace``.
        block_tokens: See ``open_trace``.
        session_interval_s: See ``open_trace``.
        shared_prefix: See ``open_trace``.
        bytes_per_token: See ``open_trace``.
        limit: Only that many requests, the first.

    Raises:
        TraceError: The file cannot be read.
        ConfigError: No such workload, parameter or format.
    """
    trace: Trace
    if argument.startswith(SCHEME):
        trace = _synthetic(argument.removeprefix(SCHEME), block_tokens)
    else:
        trace = open_trace(
            argument,
            format=format,
            strict=strict,
            block_tokens=block_tokens,
            session_interval_s=session_interval_s,
            shared_prefix=shared_prefix,
            bytes_per_token=bytes_per_token,
        )
    return trace if limit is None else Limited(trace, limit)


def _synthetic(text: str, block_tokens: int | None) -> Trace:
    name, _, query = text.partition("?")
    parameters: dict[str, float] = {} if block_tokens is None else {"block_tokens": block_tokens}
    for part in filter(None, query.split("&")):
        key, _, value = part.partition("=")
        if key in parameters:
            raise ConfigError(f"synthetic:{name}: {key} is given twice")
        parameters[key] = _number(name, key, value)
    return workload(name, **parameters)


def _number(name: str, key: str, text: str) -> float:
    try:
        value = int(text) if text.isascii() and text.isdigit() else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"synthetic:{name}: {key} must be a number, got {text[:40]!r}; write {key}=2")
    return value
