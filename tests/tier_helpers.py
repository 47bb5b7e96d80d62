"""Small disk tiers, a look behind their backs, and other processes."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import torch

import kvtier
from kvtier.format import record_bytes, unpack_entry
from kvtier.spec import DEFAULT_BLOCK_TOKENS
from kvtier.testing.blocks import chain
from kvtier.tiers.disk import LMDBTier

BLOCK = 4096
ROOT = Path(kvtier.__file__).parents[1]


def payload(number, block_bytes=BLOCK):
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (block_bytes,), dtype=torch.uint8, generator=generator)


def disk(path, blocks=8, block_bytes=BLOCK, **options):
    options = {"min_free_bytes": 0, **options}
    return LMDBTier("nvme", path, capacity_bytes=int(blocks * block_bytes), block_bytes=block_bytes, **options)


def put(tier, *numbers):
    part = chain(*numbers)
    tier.write(part.keys, [payload(number, tier.block_bytes) for number in numbers], part.labels)
    return part


def whole(tier, *numbers):
    """Whether these blocks are held, byte for byte."""
    part = chain(*numbers)
    out = [torch.zeros(tier.block_bytes, dtype=torch.uint8) for _ in numbers]
    found = tier.read(part.keys, out, part.labels)
    return found == len(numbers) and all(torch.equal(o, payload(n, len(o))) for o, n in zip(out, numbers, strict=True))


def held(tier):
    return sorted(label.depth for _, label in tier.scan())


def raw(path):
    """The environment by the back door; its tier must be closed."""
    return lmdb.open(str(path), max_dbs=10)


def place_of(tier, key):
    """Offset of a block's record in the data file."""
    with tier._volume.env.reading() as txn:
        return tier._volume.slabs.place(unpack_entry(bytes(txn.get(key, db=tier._volume.env.index))).slot)


def data_file(tier, mode="r+b"):
    return tier._volume.env.data.open(mode)


def raw_put(tier, key, record):
    """Write over a stored record where it lies, not through the code under test."""
    with data_file(tier) as file:
        file.seek(place_of(tier, key))
        file.write(bytes(record))


def raw_get(tier, key):
    with data_file(tier, "rb") as file:
        file.seek(place_of(tier, key))
        return bytearray(file.read(record_bytes(tier.block_bytes, DEFAULT_BLOCK_TOKENS)))


def find(path, needle):
    """Offset of some bytes in the data file. The file is long, and what is stored lies near its beginning."""
    with (path / "data.mdb").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return data.find(bytes(needle))


def raw_flip(tier, key, position, mask=0xFF):
    """Change one byte of a stored record where it lies, as a failing disk would."""
    record = raw_get(tier, key)
    record[position] ^= mask
    raw_put(tier, key, record)


def python(*args, **options):
    """The arguments of a process that can import kvtier and these helpers."""
    places = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return {"args": [sys.executable, *map(str, args)], "env": env, "text": True, "stdout": subprocess.PIPE, **options}


def run_python(code, *args):
    """What the code printed; its exit status must be 0."""
    done = subprocess.run(**python("-c", code, *args, stderr=subprocess.PIPE), check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
