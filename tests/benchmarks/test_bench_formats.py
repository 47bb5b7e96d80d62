"""The benchmark of storage formats: rows for every format, and measures that are nought for exact ones."""

import json
from types import SimpleNamespace

import pytest
import storage_formats
import torch
from lib.formats import FormatDisk, block_list, computed, fidelity, rounded, speeds
from lib.formats_report import COLUMNS, draw, markdown, table
from lib.text import prompt_ids

from kvtier.formats.base import FORMATS
from kvtier.formats.choice import codec_for
from kvtier.integrations.transformers import CachedLM, kv_spec

ALL = {"raw", *FORMATS}


class Words:
    """A tokenizer for 128 words."""

    def encode(self, text, *, add_special_tokens):
        return [ord(letter) % 128 for letter in text]


@pytest.fixture(scope="module")
def model(tiny):
    return tiny(num_hidden_layers=4, hidden_size=128, head_dim=64)


@pytest.fixture(scope="module")
def texts(model):
    return [computed(model, kv_spec(model), prompt_ids(Words(), 104, seed=seed), 64) for seed in (1, 2)]


def test_a_computed_text_holds_the_kv_of_its_prefix_and_nothing_behind_it(model, texts):
    held = CachedLM(model, None).prefill(prompt_ids(Words(), 64, seed=1)).past_key_values

    keys = texts[0].buffer[0, :, 0]
    assert torch.equal(keys[:, :, :64], torch.stack([layer.keys[0] for layer in held.layers]))
    assert not texts[0].buffer[..., 64:, :].any()
    assert texts[0].following[0].tolist() == prompt_ids(Words(), 104, seed=1)[64:]


def test_exact_formats_cost_nothing_and_lossy_ones_something(model, texts):
    rows = {name: row for (_, name), row in fidelity(model, texts).items()}

    assert set(rows) == ALL
    for name in ("raw", "lossless"):
        assert rows[name]["identical_bits"]
        assert (rows[name]["kl_nats"], rows[name]["next_token_agreement"]) == (0, 1)
        assert rows[name]["perplexity"] == rows[name]["perplexity_exact"]
    for name in ("fp8", "int8", "int4"):
        assert not rows[name]["identical_bits"]
        assert rows[name]["kl_nats"] > 0
    assert rows["int8"]["kl_nats"] < rows["int4"]["kl_nats"]
    assert {row["tokens_compared"] for row in rows.values()} == {2 * 39}


def test_perplexity_is_that_of_the_text_that_follows(model, texts):
    ids = prompt_ids(Words(), 104, seed=1)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, 64:-1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[65:]))

    row = fidelity(model, texts[:1], ["int8"])["float32", "raw"]

    assert row["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-4)


@pytest.mark.usefixtures("capsys")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_format_has_a_row_of_sizes_and_speeds(model, texts, tmp_path, dtype):
    blocks, spec = block_list(texts, kv_spec(model), 3), kv_spec(model)
    if dtype != "float32":
        blocks, spec = rounded(blocks, spec, dtype)

    rows = speeds(blocks, spec, tmp_path, runs=2, memcpy_threads=1)

    assert set(rows) == {(dtype, name) for name in ALL}
    for (_, name), row in rows.items():
        assert row["cold_read_ms"] > 0
        assert 0 < row["used_share"] <= row["stored_share"]
        assert (row["encode_gib_per_s"] is None) == (name == "raw")
    assert rows[dtype, "raw"]["cold_read_speedup"] == 1
    assert rows[dtype, "lossless"]["used_share"] < 1
    assert rows[dtype, "int4"]["stored_share"] < rows[dtype, "int8"]["stored_share"] < 1
    assert list(tmp_path.iterdir()) == []


def test_rounded_blocks_are_the_same_numbers_in_another_dtype(model, texts):
    blocks, spec = block_list(texts, kv_spec(model), 2), kv_spec(model)

    other, changed = rounded(blocks, spec, "bfloat16")

    assert changed.block_bytes == spec.block_bytes // 2 == other[0].numel()
    assert torch.equal(other[1].view(torch.bfloat16), blocks[1].view(torch.float32).bfloat16())


@pytest.mark.parametrize("name", [None, *FORMATS])
def test_a_disk_in_a_format_gives_back_what_was_put_after_it_was_chilled(model, texts, tmp_path, name):
    spec = kv_spec(model)
    blocks, codec = block_list(texts, spec, 2), name and codec_for(name, spec)
    out = [torch.zeros_like(block) for block in blocks]
    with FormatDisk(tmp_path / "store", spec, codec, 4) as disk:
        disk.put(["1", "2"], blocks)
        disk.chill()

        disk.get(["1", "2"], out)

    for got, block in zip(out, blocks, strict=True):
        assert torch.allclose(got.view(torch.float32), block.view(torch.float32), atol=0.2)
        assert torch.equal(got, block) == (name in {None, "lossless"})


def report_of(model, tmp_path, *options):
    args = storage_formats.arguments().parse_args(
        ["--prompts", "1", "--prefix-tokens", "64", "--following-tokens", "8", "--runs", "1", *options]
    )
    return storage_formats.measure(args, model, Words(), tmp_path)


@pytest.mark.usefixtures("capsys")
def test_a_report_has_both_dtypes_its_conditions_and_can_be_shown(model, tmp_path):
    report = report_of(model, tmp_path)

    assert {(row["dtype"], row["format"]) for row in report["rows"]} == {
        (dtype, name) for dtype in ("float32", "bfloat16") for name in ALL
    }
    assert report["lossless_identical"] is True
    assert report["conditions"]["following_tokens"] == 8
    json.dumps(report)
    assert len({len(line) for line in table(report).splitlines()}) == 1
    lines = markdown(report).splitlines()
    assert all(line.count("|") == len(COLUMNS) + 1 for line in lines[2:])
    assert len(lines) == 2 + 2 + len(report["rows"])
    draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.usefixtures("capsys")
def test_a_quick_report_leaves_bfloat16_out(model, tmp_path):
    report = report_of(model, tmp_path, "--quick")

    assert {row["dtype"] for row in report["rows"]} == {"float32"}


@pytest.mark.parametrize("options", [["--prefix-tokens", "31"], ["--following-tokens", "1"]])
def test_texts_too_short_to_say_anything_are_refused(model, tmp_path, options):
    with pytest.raises(SystemExit, match="32 tokens or more, and 2 or more follow it"):
        report_of(model, tmp_path, *options)


def test_a_lossless_format_that_is_not_fails_the_run(monkeypatch, capsys):
    report = {"rows": [], "conditions": {}, "lossless_identical": False}
    monkeypatch.setattr(storage_formats, "measure", lambda *_: report)
    monkeypatch.setattr(storage_formats, "load_model", lambda *_: (SimpleNamespace(), None))
    monkeypatch.setattr(storage_formats, "resolve_model", lambda name: name)

    assert storage_formats.main([]) == 1
    assert "identical: False" in capsys.readouterr().out
