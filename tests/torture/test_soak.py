"""A soak finds every gauge flat, and says so of one that is not."""

import gc
import gzip
import io
import json
import os
from itertools import islice
from unittest.mock import patch

import numpy as np
import pytest

from kvtier.store import TieredStore
from torture import soak, workloads
from torture.report import Progress


@pytest.fixture(autouse=True)
def quick_to_sample():
    """What other tests have made need not be looked at for each sample."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def progress():
    return Progress("soak", io.StringIO())


def test_a_short_soak_serves_no_wrong_byte_and_leaves_nothing(torture):
    rows = torture("soak")

    assert [f"soak: {fault}" for fault in rows] == soak.FAULTS
    assert [row["failures"] for row in rows.values()] == [[], [], []]
    assert [(row["wrong_bytes"], row["leaks"]) for row in rows.values()] == 3 * [(0, 0)]
    assert rows["synthetic turns"]["tried"] >= soak.TRIES.ci
    assert rows["open and close"]["survived"] == soak.MIN_CYCLES


@pytest.mark.parametrize(
    ("series", "rise"),
    [([5] * 10, 0), (list(range(10)), 9), ([1, 2] * 50, 0.5), ([10, 9, 8], -2), ([0, 0, 0, 8], 7.2)],
    ids=["flat", "rising", "wandering", "falling", "jumping"],
)
def test_the_rise_of_a_gauge_is_that_of_a_line_through_it(series, rise):
    assert soak.rise_of(series) == pytest.approx(rise, abs=0.5)


def samples(series):
    return [{"descriptors": number} for number in series]


@pytest.mark.parametrize(
    ("series", "flat"),
    [([*range(10), *[10] * 10], True), ([*[10] * 10, *range(10, 20)], False), ([10] * 19 + [11], True)],
    ids=["only while starting", "in the second half", "once"],
)
def test_only_the_second_half_of_a_run_must_be_flat(series, flat):
    figures = soak.summaries(samples(series), {"descriptors": 0.5})["descriptors"]

    assert (figures["flat"], figures["first"], figures["max"]) == (flat, series[0], max(series))


def test_a_descriptor_left_open_by_every_close_is_found(tmp_path):
    close, left = TieredStore.close, []

    def broken(self):
        left.append(os.open(os.devnull, os.O_RDONLY))
        return close(self)

    with patch.object(TieredStore, "close", broken):
        row = soak.cycles(tmp_path, 0, 6)
    for descriptor in left:
        os.close(descriptor)

    assert (row["survived"], row["failures"][0].partition(":")[0]) == (0, "descriptors rises")


def test_memory_kept_for_every_prompt_is_found(tmp_path, progress):
    prompt, kept = soak.Replay.prompt, []

    def broken(self, ids):
        kept.append(np.ones(2 << 20, np.uint8))
        prompt(self, ids)

    with patch.object(soak.Replay, "prompt", broken), patch.object(soak, "NUM_SAMPLES", 8):
        row = soak.replay(tmp_path, workloads.synthetic(0), 1200, progress)

    assert (row["survived"], row["failures"][0].partition(":")[0]) == (0, "resident_bytes rises")


def test_a_block_served_with_other_bytes_is_counted(tmp_path, progress):
    get = TieredStore.get

    def broken(self, tokens, out):
        hit = get(self, tokens, out)
        if hit.num_blocks:
            out[0][7] ^= 1
        return hit

    with patch.object(TieredStore, "get", broken), patch.object(soak, "NUM_SAMPLES", 2):
        assert soak.replay(tmp_path, workloads.synthetic(0), 300, progress)["wrong_bytes"] > 0


# Workloads


def test_conversations_share_their_system_prompts_and_grow():
    prompts = list(islice(workloads.synthetic(0), 2000))

    heads = {tuple(prompt[:8]) for prompt in prompts}
    grown = sum(prompt[: len(prompts[i])] == prompts[i] for i, prompt in enumerate(prompts[1:]))
    assert len(heads) <= 24
    assert grown > 0


def test_a_seed_gives_the_same_prompts_again():
    assert list(islice(workloads.synthetic(3), 50)) == list(islice(workloads.synthetic(3), 50))
    assert list(islice(workloads.synthetic(3), 50)) != list(islice(workloads.synthetic(4), 50))


def test_a_recorded_trace_gives_the_whole_blocks_of_its_requests_over_and_over(tmp_path):
    lines = [{"input_length": 1300, "hash_ids": [0, 1, 2]}, {"input_length": 1024, "hash_ids": [0, 7]}]
    path = tmp_path / workloads.TRACE
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)

    assert list(islice(workloads.recorded(path), 3)) == [[0, 1], [0, 7], [0, 1]]


def test_a_trace_is_found_where_the_environment_says(tmp_path, monkeypatch):
    (tmp_path / workloads.TRACE).touch()
    monkeypatch.setenv("KVTIER_TRACES", str(tmp_path))

    assert workloads.trace_file() == tmp_path / workloads.TRACE


def test_without_a_trace_its_row_says_that_it_was_skipped(tmp_path, progress):
    with patch.object(soak, "trace_file", return_value=None):
        row = soak._case(soak.Budget(directory=tmp_path), 100, progress, 1, lambda _: None)

    assert row == {"notes": "skipped: no trace here"}
