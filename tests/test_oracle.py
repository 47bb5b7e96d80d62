"""The oracle: content with a store that is right, and with no other."""

import json
import struct
import sys
from itertools import pairwise

import pytest
import torch

pytest.importorskip("transformers")

from tier_helpers import disk, place_of, put, raw_get, whole

from kvtier import cli, opening
from kvtier.errors import ConfigError, CorruptBlockError
from kvtier.format import record_bytes
from kvtier.oracle import modes as oracle_modes
from kvtier.oracle import run as oracle_run
from kvtier.oracle.files import data_file, drop_pages, flip_bits, read_through
from kvtier.oracle.models import ModelSource, make_prompts
from kvtier.oracle.modes import MODES
from kvtier.oracle.reference import Ledger, distance, same_bits
from kvtier.oracle.run import consult
from kvtier.oracle.trial import Row, Settings
from kvtier.spec import KVSpec
from kvtier.testing.blocks import chain
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.memory import MemoryTier

BLOCK_TOKENS = 16
SMALL = {"prompts": 2, "tokens": 112, "new_tokens": 3, "new_process": False}

TIERS = {
    "cold": set(),
    "filled": {"host"},
    "device": {"device"},
    "host": {"host"},
    "disk, warm": {"disk"},
    "disk, pages dropped": {"disk"},
    "layer by layer": {"host", "disk"},
    "restart": {"disk"},
    "mixed tiers": {"device", "host", "disk"},
    "damaged disk": {"disk"},
}


def ask(place, *modes, source=None, **settings):
    """Rows by mode."""
    asked = Settings(**SMALL | settings)
    rows = consult(source or ModelSource(), asked, place, modes=modes or MODES, say=lambda text: None)
    return {row.mode: row for row in rows}


def row(**changes):
    fields = {"mode": "host", "prompts": 2, "blocks": {"host": 8}, "tokens_equal": 2, "max_logit_difference": 0.0}
    return Row(**fields | {"wrong_blocks": 0, "untried": None} | changes)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A model this small gains nothing from more, and loses much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# A store that is right


@pytest.fixture(scope="module", params=[32, None], ids=["chunks", "no-chunks"])
def rows(request, tmp_path_factory):
    return ask(tmp_path_factory.mktemp("oracle"), chunk_tokens=request.param)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_exact(rows, mode):
    assert (rows[mode].verdict, rows[mode].untried) == ("exact", None)
    assert rows[mode].prompts >= 2


@pytest.mark.parametrize(("mode", "tiers"), TIERS.items(), ids=TIERS)
def test_a_mode_is_served_by_the_tiers_it_is_about(rows, mode, tiers):
    assert set(rows[mode].blocks) == tiers


def test_half_precision_is_exact_as_well(tmp_path):
    rows = ask(tmp_path, "cold", "host", "damaged disk", source=ModelSource(dtype="bfloat16"))

    assert {row.verdict for row in rows.values()} == {"exact"}


def test_a_model_from_a_directory_is_asked(tmp_path):
    ModelSource(seed=5).load().save_pretrained(tmp_path / "model")

    rows = ask(tmp_path / "stores", "cold", "disk, warm", source=ModelSource(directory=str(tmp_path / "model")))

    assert {row.verdict for row in rows.values()} == {"exact"}


# Stores that are wrong


class LyingMemory(MemoryTier):
    """Memory in which one bit of the last block of each read turns over: the lowest of a number."""

    bit = 1

    def read(self, keys, out, labels=None):
        count = super().read(keys, out, labels)
        if count:
            out[count - 1][(0,) * (out[0].dim() - 1)][0] ^= self.bit
        return count


class LyingDisk(LMDBTier):
    """A disk whose blocks turn over a bit after they were verified."""

    def read(self, keys, out, labels=None):
        count = super().read(keys, out, labels)
        if count:
            out[0][(0,) * (out[0].dim() - 1)][3] ^= 64
        return count


class CarelessDisk(LMDBTier):
    """A disk that serves what does not verify."""

    def read(self, keys, out, labels=None):
        try:
            return super().read(keys, out, labels)
        except CorruptBlockError as exc:
            at = list(keys).index(exc.key)
            record = torch.frombuffer(raw_record(self, exc.key), dtype=torch.uint8)
            out[at].copy_(record[-self.block_bytes :].view(out[at].shape))
            rest = slice(at + 1, None)
            return at + 1 + self.read(keys[rest], out[rest], labels and labels[rest])


class MixedUpMemory(MemoryTier):
    """Memory that serves the first block of a read in the place of the second."""

    def read(self, keys, out, labels=None):
        count = super().read(keys, out, labels)
        if count > 1:
            out[1].copy_(out[0])
        return count


def raw_record(tier, key):
    with tier._volume.env.data.open("rb") as file:
        file.seek(place_of(tier, key))
        return bytearray(file.read(record_bytes(tier.block_bytes, BLOCK_TOKENS)))


def test_the_lowest_bit_of_one_number_is_a_difference(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MemoryTier", LyingMemory)

    rows = ask(tmp_path, "cold", "device", "host", "mixed tiers", "disk, warm")

    assert {mode: row.verdict for mode, row in rows.items()} == {
        "cold": "exact",
        "device": "DIFFERENT",
        "host": "DIFFERENT",
        "mixed tiers": "DIFFERENT",
        "disk, warm": "exact",
    }
    assert rows["host"].wrong_blocks == rows["host"].prompts


@pytest.mark.parametrize("chunk_tokens", [32, None])
def test_a_disk_that_lies_after_verifying_is_found_out(tmp_path, monkeypatch, chunk_tokens):
    monkeypatch.setattr(opening, "LMDBTier", LyingDisk)

    rows = ask(tmp_path, "disk, warm", "disk, pages dropped", "restart", chunk_tokens=chunk_tokens)

    assert {row.verdict for row in rows.values()} == {"DIFFERENT"}
    assert all(row.max_logit_difference > 1e-3 and row.wrong_blocks for row in rows.values())


def test_a_disk_that_serves_damage_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LMDBTier", CarelessDisk)

    rows = ask(tmp_path, "disk, warm", "damaged disk")

    assert [row.verdict for row in rows.values()] == ["exact", "DIFFERENT"]


@pytest.mark.parametrize("chunk_tokens", [32, None])
def test_a_block_in_the_place_of_another_is_found_out(tmp_path, monkeypatch, chunk_tokens):
    monkeypatch.setattr(opening, "MemoryTier", MixedUpMemory)

    host = ask(tmp_path, "host", chunk_tokens=chunk_tokens)["host"]

    assert (host.verdict, host.tokens_equal < host.prompts) == ("DIFFERENT", True)


# Modes that show nothing


def test_a_tier_that_serves_nothing_is_no_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryTier, "read", lambda self, keys, out, labels=None: 0)

    host = ask(tmp_path, "host")["host"]

    assert (host.verdict, host.untried) == ("NOT TRIED", "no block came from host")


def test_damage_that_hit_nothing_is_no_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(oracle_modes, "flip_bits", lambda *args, **options: 0)

    damaged = ask(tmp_path, "damaged disk")["damaged disk"]

    assert (damaged.verdict, damaged.untried) == ("NOT TRIED", "0 of 2 records were damaged, 0 of them noticed")


def test_an_error_in_the_crowd_is_raised(tmp_path, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError("in a thread")

    monkeypatch.setattr(oracle_modes, "_put_noise", fail)

    with pytest.raises(ZeroDivisionError, match="in a thread"):
        ask(tmp_path, "evictions")


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "exact"),
        ({"tokens_equal": 1}, "DIFFERENT"),
        ({"max_logit_difference": 1e-30}, "DIFFERENT"),
        ({"max_logit_difference": float("inf")}, "DIFFERENT"),
        ({"wrong_blocks": 1}, "DIFFERENT"),
        ({"untried": "no"}, "NOT TRIED"),
        ({"untried": "no", "wrong_blocks": 1}, "DIFFERENT"),
    ],
)
def test_the_verdict(changes, verdict):
    assert row(**changes).verdict == verdict


# What is compared with what


@pytest.mark.parametrize(("one", "other"), [(0.0, -0.0), (1.0, 1.0 + 2**-23), (float("nan"), 1.0)])
def test_numbers_of_other_bits_have_a_distance(one, other):
    assert distance(torch.tensor([one]), torch.tensor([other])) > 0.0


def test_equal_bits_have_none():
    assert distance(torch.tensor([float("nan")]), torch.tensor([float("nan")])) == 0.0


def kv(*numbers):
    return torch.tensor([float(number) for number in numbers]).view(1, 1, 1, -1, 1)


def test_the_ledger_finds_the_block_that_was_served_otherwise():
    ledger = Ledger(2)
    ledger.record([5, 6, 7, 8], kv(1, 2, 3, 4), 0)

    truth, wrong = ledger.truth([5, 6, 7, 8, 9], kv(1, 2, 3, 9), 4)

    assert wrong == [1]
    assert same_bits(truth, kv(1, 2, 3, 4))


def test_the_ledger_takes_the_version_that_was_served():
    ledger = Ledger(2)
    ledger.record([5, 6], kv(1, 2), 0)
    ledger.record([5, 6], kv(1, 3), 0)

    for served in (kv(1, 2), kv(1, 3)):
        truth, wrong = ledger.truth([5, 6, 7], served, 2)
        assert wrong == []
        assert same_bits(truth, served)


def test_a_block_computed_after_other_tokens_is_not_the_same_block():
    ledger = Ledger(2)
    ledger.record([5, 6, 7, 8], kv(1, 2, 3, 4), 0)

    assert ledger.truth([6, 6, 7, 8, 9], kv(1, 2, 3, 4), 4)[1] == [0, 1]


def test_what_was_served_is_not_noted_as_computed():
    ledger = Ledger(2)
    ledger.record([5, 6, 7, 8], kv(1, 2, 3, 4), 1)

    assert ledger.truth([5, 6, 7, 8, 9], kv(1, 2, 3, 4), 4)[1] == [0]


def test_prompts_share_heads_and_end_anywhere():
    prompts = make_prompts(6, 100, block_tokens=16, vocab=50, seed=1)

    shared = [next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), 0) for pair in pairwise(prompts)]
    assert [count >= 50 for count in shared] == [True, False] * 2 + [True]
    assert len({len(ids) % 16 for ids in prompts}) == 6
    assert max(map(max, prompts)) < 50


# Files


SPEC = KVSpec(layers=1, kv_heads=1, head_dim=16, dtype="float32", block_tokens=32)


def test_one_bit_of_each_record_named_is_flipped(tmp_path):
    tier = disk(tmp_path, block_bytes=SPEC.block_bytes)
    put(tier, 1, 2, 3)
    tier.flush()
    before = {number: bytes(raw_get(tier, chain(number).keys[0])) for number in (1, 2, 3)}

    found = flip_bits(data_file(tmp_path), chain(1, 3).keys, SPEC, seed=4)

    after = {number: bytes(raw_get(tier, chain(number).keys[0])) for number in (1, 2, 3)}
    flipped = {n: sum((a ^ b).bit_count() for a, b in zip(before[n], after[n], strict=True)) for n in before}
    assert (found, flipped) == (2, {1: 1, 2: 0, 3: 1})
    assert whole(tier, 2)
    for number in (1, 3):
        with pytest.raises(CorruptBlockError):
            whole(tier, number)
    tier.close()


def test_pages_are_dropped_and_brought_in(tmp_path):
    residency, machine = pytest.importorskip("kvtier.calibrate.residency"), pytest.importorskip("lib.machine")
    path = tmp_path / "data"
    path.write_bytes(struct.pack("<Q", 7) * (1 << 20))
    if machine.conditions(tmp_path)["disk"]["filesystem"] not in {"ext4", "xfs", "btrfs"}:
        pytest.skip("this file system need not drop pages when asked")

    drop_pages(path)
    cold = residency.resident_fraction(path)
    read_through(path)

    assert cold < 0.01
    assert residency.resident_fraction(path) > 0.99


# Refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": 0}, "prompts must be at least 1"),
        ({"new_tokens": 0}, "new_tokens must be at least 1"),
        ({"tokens": 111}, "tokens must be at least 112"),
        ({"chunk_tokens": 24}, "chunk_tokens must be a multiple of block_tokens"),
    ],
)
def test_settings_that_would_show_nothing_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        Settings(**SMALL | changes)


def test_a_prompt_longer_than_the_model_takes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the model takes 8192 tokens"):
        ask(tmp_path, tokens=8190)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"directory": "/nowhere"}, "has no config.json"),
        ({"device": "teapot"}, "'teapot' is not a device of this machine"),
    ],
)
def test_a_model_that_is_not_there_is_refused(tmp_path, source, said):
    with pytest.raises(ConfigError, match=said):
        ask(tmp_path, source=ModelSource(**source))


def test_a_directory_with_another_thing_in_it_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ConfigError, match="cannot be loaded"):
        ModelSource(directory=str(tmp_path)).load()


# The command


COMMAND = ["oracle", "--prompts", "1", "--tokens", "112", "--new-tokens", "2"]


def test_the_command_prints_a_table_and_leaves_nothing_behind(tmp_path, capsys):
    """With a new process for the restart."""
    report, place = tmp_path / "out.json", tmp_path / "stores"
    place.mkdir()

    status = cli.main([*COMMAND, "--directory", str(place), "--json", str(report)])

    said, got = capsys.readouterr(), json.loads(report.read_text())
    assert status == 0, said.out
    assert [line.split("  ")[0] for line in said.out.splitlines()[2:-1]] == list(MODES)
    assert said.out.endswith("every mode is exact\n")
    assert "restart: From a directory that another process has filled" in said.err
    assert (got["ok"], [row["verdict"] for row in got["rows"]]) == (True, ["exact"] * len(MODES))
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("changes", [{"max_logit_difference": float("inf")}, {"untried": "no block came from host"}])
def test_the_command_fails_for_a_difference_and_for_a_mode_not_tried(monkeypatch, capsys, changes):
    monkeypatch.setattr(oracle_run, "consult", lambda *args, **options: [row(mode="cold"), row(**changes)])

    assert cli.main([*COMMAND, "--json", "-"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out, parse_constant=pytest.fail)["ok"] is False
    assert "NOT every mode is exact" in said.err
    assert changes.get("untried") is None or "host: no block came from host" in said.err


def test_without_transformers_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)

    assert cli.main(COMMAND) == 2
    assert capsys.readouterr().err == "kvtier: the oracle needs transformers: pip install 'kvtier[transformers]'\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tokens", "50"], "tokens must be at least 112"),
        (["--chunk-tokens", "24"], "must be a multiple of"),
        (["--directory", "/nowhere"], "nothing can be made in '/nowhere'"),
        (["--model", "/nowhere"], "has no config.json"),
    ],
)
def test_bad_input_to_the_command_is_status_2(capsys, words, said):
    assert cli.main([*COMMAND, *words]) == 2
    assert said in capsys.readouterr().err
