"""Processes to be killed: open the disk tier at a path and write until somebody ends it.

    kill_writer.py PATH             this process writes
    kill_writer.py PATH --lossless  this process writes, in the lossless format
    kill_writer.py PATH --encrypted this process writes, encrypted
    kill_writer.py PATH --rounds    each line on standard input makes a child that writes; its pid
                                    is printed first, and "dead" when it was killed

Children are forked so that ten kills load torch once.
"""

import os
import sys

from kvtier.formats.choice import codec_for
from kvtier.formats.encrypted import Encrypted
from kvtier.formats.keys import Key
from kvtier.spec import KVSpec
from kvtier.testing.blocks import SHAPE, write_until_killed
from kvtier.testing.tier_tests import TierTests
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.encoded import EncodedTier


def write(path):
    tier = LMDBTier(
        "nvme", path, capacity_bytes=TierTests.CAPACITY_BYTES, block_bytes=TierTests.BLOCK_BYTES, min_free_bytes=0
    )
    write_until_killed(tier)


def geometry():
    layers, _, heads, tokens, head_bytes = SHAPE
    return KVSpec(layers=layers, kv_heads=heads, head_dim=head_bytes // 4, dtype="float32", block_tokens=tokens)


def write_lossless(path):
    write_encoded(path, codec_for("lossless", geometry(), budget=1.0))


def write_encrypted(path):
    write_encoded(path, Encrypted(geometry(), Key(bytes(range(32)))))


def write_encoded(path, codec):
    size = codec.encoded_bytes
    inner = LMDBTier("nvme", path, capacity_bytes=TierTests.NUM_BLOCKS * size, block_bytes=size, min_free_bytes=0)
    write_until_killed(EncodedTier(inner, codec))


def rounds(path):
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            os.write(1, f"pid {os.getpid()}\n".encode())
            write(path)
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    modes = {"--rounds": rounds, "--lossless": write_lossless, "--encrypted": write_encrypted}
    modes.get("".join(sys.argv[2:]), write)(sys.argv[1])
