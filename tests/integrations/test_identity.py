"""Whose blocks are whose: a fingerprint sees every weight, and only weights and the config that shapes KV."""

import copy

import pytest
import torch
from store_helpers import ids_of
from transformers import AutoModelForCausalLM

from kvtier.integrations.transformers import fingerprint, kv_spec, namespace_of


@pytest.fixture(scope="module")
def model(tiny):
    return tiny()


@pytest.fixture(scope="module")
def digest(model):
    return fingerprint(model)


def test_a_fingerprint_is_the_same_every_time(model, digest):
    assert fingerprint(model) == digest


def test_a_copy_has_the_same_fingerprint(model, digest):
    assert fingerprint(copy.deepcopy(model)) == digest


def test_reloading_from_disk_keeps_the_fingerprint(model, digest, tmp_path):
    model.save_pretrained(tmp_path)

    assert fingerprint(AutoModelForCausalLM.from_pretrained(tmp_path).eval()) == digest


def test_another_attention_kernel_changes_the_fingerprint(model, digest, tmp_path):
    model.save_pretrained(tmp_path)
    kernels = {
        kernel: fingerprint(AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=kernel).eval())
        for kernel in ("sdpa", "eager")
    }
    assert kernels["sdpa"] == digest
    assert kernels["eager"] != digest, "its keys and values differ in the last bits"


def test_running_the_model_keeps_the_fingerprint(model, digest):
    with torch.no_grad():
        model(input_ids=torch.tensor([ids_of(1, 9)]))

    assert fingerprint(model) == digest


@pytest.mark.parametrize("position", [0, -1])
def test_any_single_changed_element_of_any_weight_changes_the_fingerprint(model, digest, position):
    changed = copy.deepcopy(model)
    missed = []
    for name, weight in changed.named_parameters():
        flat = weight.detach().view(-1)
        old = flat[position].clone()
        flat[position] = torch.nextafter(old, old + 1)  # one bit
        if fingerprint(changed) == digest:
            missed.append(name)
        flat[position] = old

    assert missed == []
    assert fingerprint(changed) == digest


def test_the_sign_of_a_zero_counts(model):
    changed = copy.deepcopy(model)
    weight = next(changed.parameters()).detach().view(-1)
    weight[3] = 0.0
    before = fingerprint(changed)
    weight[3] = -0.0

    assert fingerprint(changed) != before


@pytest.mark.parametrize(
    "change",
    [{"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}, {"rms_norm_eps": 1e-3}, {"hidden_act": "gelu"}],
    ids=["rope", "norm", "activation"],
)
def test_what_the_config_does_to_kv_counts(tiny, digest, change):
    assert fingerprint(tiny(**change)) != digest


def test_what_the_config_cannot_do_to_kv_does_not_count(tiny, digest):
    assert fingerprint(tiny(eos_token_id=7, max_position_embeddings=512)) == digest


def test_another_precision_of_the_same_weights_counts(model, digest):
    assert fingerprint(copy.deepcopy(model).to(torch.bfloat16)) != digest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_the_geometry_is_found_by_running_the_model(tiny, kind, dtype):
    spec = kv_spec(tiny(kind, dtype=dtype), block_tokens=8)

    assert (spec.layers, spec.kv_heads, spec.head_dim, spec.dtype, spec.block_tokens) == (2, 2, 16, dtype, 8)


@pytest.mark.model
def test_real_the_geometry_of_smollm2(smollm2):
    spec = kv_spec(smollm2[0])

    assert (spec.layers, spec.kv_heads, spec.head_dim, spec.bytes_per_token) == (30, 3, 64, 46_080)


# In one directory


def test_two_models_of_one_shape_share_no_block(tiny, open_lm, tmp_path):
    ids = ids_of(1, 48)
    first = open_lm(tiny(seed=0), tmp_path, disk=16)
    first.prefill(ids)
    first.close()

    second = open_lm(tiny(seed=1), tmp_path, disk=16)

    assert (second.prefill(ids).num_reused, second.store.stats()["tiers"]["disk"]["used_blocks"]) == (0, 6)


def test_a_fine_tuned_model_does_not_find_its_bases_blocks(tiny, open_lm, tmp_path):
    ids = ids_of(1, 48)
    base = open_lm(tiny(), tmp_path, disk=16)
    base.prefill(ids)
    base.close()
    tuned = copy.deepcopy(tiny())
    with torch.no_grad():
        tuned.lm_head.weight.view(-1)[0] += 1

    assert open_lm(tuned, tmp_path, disk=16).prefill(ids).num_reused == 0


@pytest.mark.parametrize("other", [{"adapter": "lora@1"}, {"salt": b"tenant"}], ids=["adapter", "salt"])
def test_adapters_and_tenants_share_no_block(tiny, open_lm, tmp_path, other):
    ids = ids_of(1, 48)
    plain = open_lm(tiny(), tmp_path, disk=16)
    plain.prefill(ids)
    plain.close()

    assert open_lm(tiny(), tmp_path, disk=16, **other).prefill(ids).num_reused == 0


def test_the_same_model_loaded_again_finds_its_blocks(tiny, open_lm, tmp_path):
    ids = ids_of(1, 48)
    before = open_lm(tiny(), tmp_path, disk=16)
    before.prefill(ids)
    before.close()

    assert open_lm(copy.deepcopy(tiny()), tmp_path, disk=16).prefill(ids).hit.num_blocks == 3


def test_namespaces_of_equal_models_are_equal(tiny):
    assert namespace_of(tiny()).root == namespace_of(copy.deepcopy(tiny())).root
