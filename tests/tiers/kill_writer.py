"""Processes to be killed: open the disk tier at a path and write until somebody ends it.

    kill_writer.py PATH            this process writes
    kill_writer.py PATH --rounds   each line on standard input makes a child that writes; its pid
                                   is printed first, and "dead" when it was killed

Children are forked so that ten kills load torch once.
"""

import os
import sys

from kvtier.testing.blocks import write_until_killed
from kvtier.testing.tier_tests import TierTests
from kvtier.tiers.disk import LMDBTier


def write(path):
    tier = LMDBTier(
        "nvme", path, capacity_bytes=TierTests.CAPACITY_BYTES, block_bytes=TierTests.BLOCK_BYTES, min_free_bytes=0
    )
    write_until_killed(tier)


def rounds(path):
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            os.write(1, f"pid {os.getpid()}\n".encode())
            write(path)
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    (rounds if sys.argv[2:] == ["--rounds"] else write)(sys.argv[1])
