"""Geometry in, bytes out; what is not a geometry is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from kvtier.errors import ConfigError
from kvtier.spec import DEFAULT_BLOCK_TOKENS, DTYPE_BYTES, KVSpec

GEOMETRY = {"layers": 2, "kv_heads": 3, "head_dim": 5, "dtype": "float16", "block_tokens": 7}


def test_a_token_costs_key_and_value_of_every_layer_and_head():
    assert KVSpec(**GEOMETRY).bytes_per_token == 2 * 2 * 3 * 5 * 2


def test_a_block_is_its_tokens():
    assert KVSpec(**GEOMETRY).block_bytes == 2 * 2 * 3 * 5 * 2 * 7


def test_the_shape_is_layers_kv_heads_tokens_dim():
    assert KVSpec(**GEOMETRY).block_shape == (2, 2, 3, 7, 5)


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
def test_a_tensor_of_the_shape_has_the_bytes_of_a_block(dtype):
    spec = KVSpec(**GEOMETRY | {"dtype": dtype})

    block = torch.empty(spec.block_shape, dtype=getattr(torch, dtype))

    assert block.nbytes == spec.block_bytes


def test_an_8b_model_in_bfloat16_has_blocks_of_4_mib():
    spec = KVSpec(layers=32, kv_heads=8, head_dim=128, dtype="bfloat16")

    assert spec.block_bytes == 4 * 2**20


def test_a_block_has_32_tokens_unless_told_otherwise():
    spec = KVSpec(layers=1, kv_heads=1, head_dim=1, dtype="float32")

    assert spec.block_tokens == DEFAULT_BLOCK_TOKENS == 32


@pytest.mark.parametrize("field", ["layers", "kv_heads", "head_dim", "block_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "8", None, np.float32(2)])
def test_a_number_that_is_not_a_count_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=rf"KVSpec\.{field} must be a whole number of at least 1"):
        KVSpec(**GEOMETRY | {field: value})


@pytest.mark.parametrize("field", ["layers", "kv_heads", "head_dim", "block_tokens"])
def test_one_is_enough(field):
    assert getattr(KVSpec(**GEOMETRY | {field: 1}), field) == 1


def test_an_unknown_dtype_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'int8' is not known; use one of: float64, .*float8_e5m2"):
        KVSpec(**GEOMETRY | {"dtype": "int8"})


def test_a_spec_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        KVSpec(**GEOMETRY).layers = 4


def test_equal_geometries_are_equal_specs():
    assert KVSpec(**GEOMETRY) == KVSpec(**GEOMETRY)
