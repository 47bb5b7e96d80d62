"""What opens a trace in another process, for tests: one never ends, one kills who opens it, one tells."""

import itertools
import os
import signal

from kvtier.errors import TraceError
from kvtier.sim.trace import Request


class Endless:
    """Says on standard output whose process it is gone through in, and goes on for ever."""

    name = "endless"
    block_tokens = 64

    def __iter__(self):
        os.write(1, f"{os.getpid()}\n".encode())
        return (Request(float(number), [number % 50], 64, 1) for number in itertools.count())


def killed():
    os._exit(9)


def at_interrupt():
    raise TraceError(f"an interrupt is {signal.getsignal(signal.SIGINT)!r}")
