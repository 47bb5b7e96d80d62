"""What the tests of traces share: the published files, and small ones of any content."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def published(name):
    """A published trace's file; the test is skipped where it is not here."""
    places = [os.environ.get("KVTIER_TRACES"), ROOT.parent / "shared" / "traces"]
    for place in places:
        if place and (Path(place) / name).exists():
            return Path(place) / name
    pytest.skip(f"{name} is in neither KVTIER_TRACES nor shared/traces beside the repository")


def watched(replay):
    """A replay, and its moves by source, destination and whether the source kept its copy, counted as it runs."""
    ways, commit = Counter(), replay.placement.commit

    def count_and_commit(moves):
        ways.update((move.src, move.dst, move.keep) for move in moves)
        return commit(moves)

    replay.placement.commit = count_and_commit
    return replay, ways


def file_of(directory, *lines, name="trace.jsonl", packed=False):
    """A file whose lines are records, or text as it is."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    data = text.encode()
    (directory / name).write_bytes(gzip.compress(data) if packed else data)
    return directory / name


def mooncake(timestamp, tokens, ids, output=1):
    """A record of Mooncake's."""
    return {"timestamp": timestamp, "input_length": tokens, "output_length": output, "hash_ids": ids}


def session(*requests, tools=0, system=0, block_size=64, **more):
    """A line of an agentic trace."""
    about = {"id": "s", "block_size": block_size, "tool_tokens": tools, "system_tokens": system}
    return {**about, "requests": list(requests), **more}


def turn(t, keep, *runs, output=1, block_size=64, **more):
    """A request of it; its length follows from its ids."""
    tokens = block_size * (keep + sum(count for _, count in runs))
    return {"t": t, "m": "model", "in": tokens, "out": output, "keep": keep, "add": [list(run) for run in runs], **more}


def subagent(t, *requests, tools=0, system=0):
    """A list inside a session's."""
    about = {"t": t, "subagent": "a", "tool_tokens": tools, "system_tokens": system}
    return {**about, "requests": list(requests)}
