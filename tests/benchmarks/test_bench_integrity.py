"""The benchmark of verification and encryption: its control skips the check and nothing else, its tables say all."""

import json

import integrity
import pytest
import torch
from lib import integrity as lib_integrity
from lib.integrity import COMPARISONS, EncryptedDisk, measure
from lib.integrity_report import COSTS, PARTS, PER_BLOCK, draw, markdown, table

from kvtier.errors import CorruptBlockError
from kvtier.spec import KVSpec
from kvtier.tiers.records import Records

SMALL = KVSpec(layers=2, kv_heads=2, head_dim=64, dtype="float32", block_tokens=32)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(lib_integrity, "SPEC", SMALL)
    monkeypatch.setattr(integrity, "SPEC", SMALL)


@pytest.fixture
def report(tmp_path, capsys):
    target = tmp_path / "report.json"

    assert integrity.main(["--batch", "4", "--runs", "2", "--store", str(tmp_path), "--json", str(target)]) == 0

    return json.loads(target.read_text())


def test_a_report_has_every_comparison_its_limits_and_its_conditions(report):
    assert [(row["cost"], row["op"]) for row in report["costs"]] == [(each.cost, each.op) for each in COMPARISONS]
    for row in report["costs"]:
        assert len(row["with_s"]) == len(row["without_s"]) == report["conditions"]["runs"] == 2
        assert min(row["with_gib_per_s"], row["without_gib_per_s"], row["limit_gib_per_s"], row["time_ratio"]) > 0
    assert report["conditions"]["cryptography"]
    assert "Records.check" in report["conditions"]["without_verification"]
    assert {row["part"].split(",")[0] for row in report["parts"]} == {
        "memcpy",
        "XXH3",
        "AES-GCM encrypt",
        "AES-GCM decrypt",
        "ChaCha20-Poly1305 encrypt",
        "AES-GCM-SIV encrypt",
    }
    assert all(row["ns"] > 0 for row in report["per_block"])


def test_tables_have_a_line_for_every_row(report, tmp_path):
    lines = markdown(report).splitlines()

    for name, columns in (("costs", COSTS), ("parts", PARTS), ("per_block", PER_BLOCK)):
        head = lines.index("| " + " | ".join(columns) + " |")
        body = lines[head + 2 : head + 2 + len(report[name])]
        assert all(line.count("|") == len(columns) + 1 for line in body)
    assert len(table(report).splitlines()) == len(lines) - 3  # a terminal needs no rule below the heads
    draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.usefixtures("capsys")
def test_the_control_runs_alone_are_not_verified(tmp_path, monkeypatch):
    calls, check = [], Records.check
    monkeypatch.setattr(Records, "check", lambda *args: (calls.append(args[2]), check(*args))[1])
    timed, seen = lib_integrity._timed, []

    def counted(prepare, run, *, verified=True):
        def prepared():
            prepare()
            calls.clear()

        seconds = timed(prepared, run, verified=verified)
        seen.append((verified, len(calls)))
        return seconds

    monkeypatch.setattr(lib_integrity, "_timed", counted)

    measure(tmp_path, batch=3, runs=1, threads=1)

    assert sorted(seen) == [(False, 0), (False, 0), (True, 0), (True, 0), *[(True, 3)] * 4]  # puts check nothing


def test_an_encrypted_disk_gives_back_what_was_put_and_refuses_what_was_changed(tmp_path):
    blocks = list(torch.arange(2 * SMALL.block_bytes).to(torch.uint8).view(2, -1))
    out = [torch.zeros_like(block) for block in blocks]
    with EncryptedDisk(tmp_path / "store", 2) as disk:
        disk.put(["1", "2"], blocks)
        disk.chill()
        disk.get(["1", "2"], out)

        assert all(torch.equal(*pair) for pair in zip(out, blocks, strict=True))
        disk.tier.codec = lib_integrity.Encrypted(SMALL, lib_integrity.Key(bytes(32)))
        with pytest.raises(CorruptBlockError, match="wrong key"):
            disk.get(["1", "2"], out)


@pytest.mark.parametrize("option", ["--runs", "--batch"])
def test_a_number_below_one_is_refused(option, capsys):
    with pytest.raises(SystemExit) as caught:
        integrity.main([option, "0"])

    assert caught.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err


def test_what_cannot_be_measured_ends_it_with_status_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(lib_integrity, "COLD_BYTES", -1)

    assert integrity.main(["--batch", "2", "--runs", "1", "--store", str(tmp_path)]) == 2
    assert "are still in memory" in capsys.readouterr().err
