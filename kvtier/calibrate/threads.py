"""A start gun: the time that some threads take together, without the time to start them."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def timed_threads(jobs: Sequence[Callable[[], None]], finish: Callable[[], None] | None = None) -> float:
    """Run each job in a thread of its own, all at once, and ``finish`` after the last.

    Returns:
        Seconds from the moment the last thread is ready to the return of ``finish``.

    A job that raises ends the measurement with its exception, once the others are done.
    """
    started = 0.0

    def fire() -> None:
        nonlocal started
        started = time.perf_counter()

    gate = threading.Barrier(len(jobs), action=fire)  # the last to arrive reads the clock

    def run(job: Callable[[], None]) -> None:
        gate.wait()
        job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(run, job) for job in jobs]:
            future.result()
        if finish is not None:
            finish()
        return time.perf_counter() - started
