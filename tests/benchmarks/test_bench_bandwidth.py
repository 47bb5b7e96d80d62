"""The bandwidth benchmark compares like with like: every store gives back what was put, warm and cold."""

import json

import pytest
import tier_bandwidth
import torch
from lib.bandwidth import Cell, KvtierDisk, KvtierDiskCached
from lib.caller import seen_by_the_caller
from lib.rivals import RIVALS
from lib.stages import stages
from lib.sustained import sustained

BLOCK = 8192


def noise(seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randint(0, 256, (count, BLOCK), dtype=torch.uint8, generator=generator))


@pytest.fixture(params=[KvtierDisk, KvtierDiskCached, *RIVALS], ids=lambda kind: kind.__name__)
def store(request, tmp_path):
    kind = request.param
    with kind(tmp_path / "store", BLOCK, 4) as store:
        if store.name == "file_direct":
            store.flags = 0  # these buffers are not page-aligned
        yield store


def test_a_store_gives_back_what_was_put_warm_and_cold(store):
    blocks = noise(1)
    store.put(["1", "2", "3"], blocks)
    for prepare in (lambda: None, store.chill):
        prepare()
        out = noise(2)
        store.get(["1", "2", "3"], out)

        assert all(got.equal(block) for got, block in zip(out, blocks, strict=True))


def test_a_store_has_room_again_for_what_was_deleted(store):
    for turn in range(4):
        store.put(["1", "2", "3"], blocks := noise(turn))
        out = noise(9)
        store.get(["1", "2", "3"], out)
        store.delete(["1", "2", "3"])

        assert all(got.equal(block) for got, block in zip(out, blocks, strict=True))


@pytest.mark.usefixtures("capsys")
def test_a_cell_has_a_row_with_its_limit_for_every_case(tmp_path):
    with Cell(tmp_path, BLOCK, 2, torch.device("cpu"), RIVALS, 1) as cell:
        rows = cell.measure(2)

    seen = {(row["store"], row["op"], row["path"]) for row in rows}
    assert {
        ("kvtier", op, path) for op in ("get", "put") for path in ("device", "host", "disk_warm", "disk_cold")
    } <= seen
    assert {(kind.name, "get", "disk_cold") for kind in RIVALS} <= seen
    assert len(seen) == len(rows)
    for row in rows:
        assert row["gib_per_s"] == pytest.approx(2 * BLOCK / 2**30 / (row["p50_ms"] / 1e3))
        assert row["limit_gib_per_s"] > 0


def test_turnovers_report_the_growth_of_the_file(tmp_path, capsys):
    rows = sustained([KvtierDisk], tmp_path, block_bytes=BLOCK, batch=4, blocks=8, turnovers=2)

    assert [row["turnover"] for row in rows] == [0, 1, 2]
    assert all(row["payload_bytes"] == 8 * BLOCK for row in rows)
    assert rows[2]["file_bytes"] <= rows[1]["file_bytes"] + 64 * 4096
    assert "turnover 2 of 2" in capsys.readouterr().err


def test_the_stages_of_a_get_and_a_put_add_up(tmp_path):
    rows = stages(tmp_path, block_bytes=BLOCK, batch=4, runs=2)

    for op in ("get", "put"):
        assert sum(row["share"] for row in rows if row["op"] == op) == pytest.approx(1)
        assert all(row["thread_ms"] > 0 for row in rows if row["op"] == op)


def test_a_block_that_is_not_whole_pages_is_refused(capsys):
    with pytest.raises(SystemExit, match="multiples of 4 KiB"):
        tier_bandwidth.main(["--block-kib", "6"])


def test_batches_that_are_all_too_long_are_refused(capsys):
    with pytest.raises(SystemExit, match=r"no batch of \[1000\] blocks stays below 384 MiB"):
        tier_bandwidth.main(["--block-kib", "1024", "--batch", "1000"])


@pytest.mark.slow
def test_the_whole_script_writes_its_json_and_draws(tmp_path):
    wanted = tmp_path / "out" / "report.json"
    arguments = ["--block-kib", "64", "--batch", "4", "--runs", "2", "--turnovers", "1", "--store", str(tmp_path)]

    assert tier_bandwidth.main([*arguments, "--json", str(wanted), "--plot", str(tmp_path / "plot.png")]) == 0

    report = json.loads(wanted.read_text())
    assert {"conditions", "rows", "sustained", "caller", "stages"} <= set(report)
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.slow
def test_no_put_of_the_callers_is_refused(tmp_path):
    rows = seen_by_the_caller(tmp_path, runs=3, threads=1)

    assert [row["refused_blocks"] for row in rows] == [0] * len(rows)
