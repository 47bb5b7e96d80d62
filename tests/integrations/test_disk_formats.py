"""A model over a disk in a storage format: exact ones change nothing, others have names of their own."""

import pytest
import torch
from store_helpers import ids_of

from kvtier.errors import SpecMismatchError
from kvtier.integrations import transformers as adapter
from kvtier.integrations.transformers import CachedLM, namespace_of
from kvtier.opening import open_store


def from_disk(lm, ids):
    """A prefill whose prefix comes from disk, and how much of it does."""
    lm.prefill(ids)
    lm.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("chunk_tokens", [None, 32])
def test_through_the_lossless_format_logits_are_those_of_raw_blocks(tiny, open_lm, tmp_path, dtype, chunk_tokens):
    model, ids, logits = tiny(dtype=dtype), ids_of(1, 80), {}
    options = {"disk": 64, "chunk_tokens": chunk_tokens}
    for name in ("raw", "lossless"):
        kind = {"disk_format": name} | ({"disk_budget": 1.0} if name == "lossless" else {})
        from_disk(open_lm(model, tmp_path / name, **options, **kind), ids)
        lm = open_lm(model, tmp_path / name, **options, **kind)
        filled = lm.prefill(ids)
        assert set(filled.hit.tiers) == {"disk"}
        assert filled.num_reused >= 64
        logits[name] = filled.logits

    assert torch.equal(logits["raw"], logits["lossless"])


@pytest.mark.parametrize("name", ["fp8", "int8", "int4"])
def test_through_a_lossy_format_logits_are_near(tiny, open_lm, tmp_path, name):
    model, ids = tiny(), ids_of(1, 80)
    exact = CachedLM(model, None).prefill(ids).logits
    from_disk(open_lm(model, tmp_path, disk=64, disk_format=name), ids)

    filled = open_lm(model, tmp_path, disk=64, disk_format=name).prefill(ids)

    assert filled.num_reused >= 64
    assert not torch.equal(filled.logits, exact)
    assert torch.allclose(filled.logits, exact, atol=0.05)


def test_opening_fingerprints_the_model_once(tiny, tmp_path, monkeypatch):
    calls, genuine = [], adapter.fingerprint
    monkeypatch.setattr(adapter, "fingerprint", lambda model: calls.append(model) or genuine(model))

    CachedLM.open(tiny(), tmp_path, block_tokens=16, host=0, disk="1 MiB", disk_format="int8").close()

    assert len(calls) == 1


@pytest.mark.parametrize("name", ["lossless", "int8"])
@pytest.mark.parametrize("chunk_tokens", [None, 32])
def test_a_store_opened_by_hand_is_taken_if_the_rest_fits(tiny, tmp_path, name, chunk_tokens):
    names = namespace_of(tiny(), block_tokens=16, chunk_tokens=chunk_tokens)
    with open_store(tmp_path, names, host=0, disk="1 MiB", disk_format=name) as store:
        assert CachedLM(tiny(), store, chunk_tokens=chunk_tokens).spec == names.spec


def test_a_store_in_a_format_for_other_chunks_is_refused(tiny, tmp_path):
    names = namespace_of(tiny(), block_tokens=16, chunk_tokens=32)
    with (
        open_store(tmp_path, names, host=0, disk="1 MiB", disk_format="int8") as store,
        pytest.raises(SpecMismatchError, match="layout 'kvtier-v1/chunk32', the model needs 'kvtier-v1'"),
    ):
        CachedLM(tiny(), store)


def test_a_store_in_a_format_for_other_weights_is_refused(tiny, tmp_path):
    names = namespace_of(tiny(seed=1), block_tokens=16)
    with (
        open_store(tmp_path, names, host=0, disk="1 MiB", disk_format="int8") as store,
        pytest.raises(SpecMismatchError, match="has weights"),
    ):
        CachedLM(tiny(), store)
