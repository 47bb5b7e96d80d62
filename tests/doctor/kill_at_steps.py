"""Compacts or repairs copies of a store, and is killed at one step after the other.

kill_at_steps.py compact|check STORE COPIES      makes COPIES/1, COPIES/2, ...; the last one was not killed
"""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

from doctor_helpers import copy_store

from kvtier.doctor import checking, compacting, reading, rebuilding
from kvtier.tiers.about import About
from kvtier.tiers.environment import Environment
from kvtier.tiers.slabs import Slabs

#: What changes something outside the process. Every call of any of them is a step.
STEPS = [
    (os, "fsync"),
    (os, "truncate"),
    (shutil, "rmtree"),
    (Path, "rename"),
    (Path, "unlink"),
    (About, "agree"),
    (Environment, "change"),
    (Environment, "sync"),
    (Environment, "close"),
    (Slabs, "grow"),
    (Slabs, "write"),
    (reading, "amend"),
]


def arm(number):
    """Be killed before the step with this number."""
    count = itertools.count(1)

    def armed(call):
        def step(*args, **options):
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return step

    for place, name in STEPS:
        setattr(place, name, armed(getattr(place, name)))
    rebuilding.sync_directory = armed(rebuilding.sync_directory)


def main(verb, store, copies):
    for number in itertools.count(1):
        copy = copy_store(Path(store), Path(copies) / str(number))
        child = os.fork()
        if child == 0:
            arm(number)
            if verb == "compact":
                compacting.compact(copy, threads=2)
            else:
                checking.check(copy, repair=True, threads=2)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
