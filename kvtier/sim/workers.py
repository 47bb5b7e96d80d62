"""Replays in several processes: results as they come, an error that says whose it is, and nobody left behind.

    here                      pool of fresh processes
    jobs      -- queue -->    measure
    results   <-- queue --
    pipe, held open           end of file: leave at once

Workers hold one end of a pipe on which nothing is ever sent. When this process closes the other end, or dies
in whatever way, each worker sees the end of file and leaves in the middle of its replay; to wait until replays of
minutes come to their ends is not what an interrupt asks for. Processes are spawned, not forked, since a fork of
a process with threads can hang.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from kvtier.errors import ConfigError, KVTierError
from kvtier.sim.sweep import Job, measure

Result = tuple[int, dict[str, Any]]
"""A job's place among those given, and what was found."""

Act = Callable[[Job], dict[str, Any]]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results(jobs: Sequence[Job], processes: int, act: Act = measure) -> Iterator[Result]:
    """Carry out jobs; yields each as it is done, in any order.

    Args:
        jobs: What to replay.
        processes: How many at a time; 1 stays in this process.
        act: What is done for each; can be carried to another process.

    Raises:
        ConfigError: A job's trace or settings cannot be; named by its policy and capacity.
        KVTierError: A worker died, most likely for want of memory.
    """
    if processes == 1:
        for number, job in enumerate(jobs):
            try:
                yield number, act(job)
            except ConfigError as exc:
                raise _whose(job, exc) from exc
        return
    with _pool(min(processes, max(1, len(jobs)))) as pool:
        numbers: dict[Future[dict[str, Any]], int] = {}
        for number, job in enumerate(jobs):
            numbers[pool.submit(act, job)] = number
        for done in as_completed(numbers):
            number = numbers[done]
            try:
                yield number, done.result()
            except ConfigError as exc:
                raise _whose(jobs[number], exc) from exc
            except BrokenProcessPool as exc:
                raise KVTierError(
                    f"a process of the sweep died, with {jobs[number].label} under way or waiting; was it killed for "
                    "want of memory? --jobs 1 takes the least"
                ) from exc


def in_order(
    jobs: Sequence[Job], processes: int, done: Callable[[], None] = lambda: None, act: Act = measure
) -> list[dict[str, Any]]:
    """The same as a list in the order of the jobs; ``done`` is called after each."""
    found: list[dict[str, Any]] = [{} for _ in jobs]
    for number, result in results(jobs, processes, act):
        found[number] = result
        done()
    return found


def _whose(job: Job, error: ConfigError) -> ConfigError:
    return type(error)(f"{job.label}: {error}")


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(theirs,))
    try:
        yield pool
    except BaseException:
        ours.close()  # what is under way is of no use any more
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def _begin(pipe: Connection) -> None:
    """In a worker: leave the interrupt to whoever gave the jobs, and leave with them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_at_end, args=(pipe,), daemon=True).start()


def _leave_at_end(pipe: Connection) -> None:
    pipe.poll(None)
    os._exit(1)
