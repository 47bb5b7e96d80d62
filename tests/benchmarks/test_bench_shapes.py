"""Geometries against published parameter counts, and the arithmetic built on them."""

from dataclasses import replace

import pytest
from lib.shapes import (
    GPUS,
    SHAPES,
    break_even_bandwidth,
    flop_per_kv_byte,
    layers_that_fit,
    prefill_flops,
)

PUBLISHED = {
    "llama-3.1-8b": (8.03e9, 131_072),
    "llama-3.1-70b": (70.6e9, 327_680),
    "llama-3.2-1b": (1.236e9, 32_768),
    "smollm2-135m": (134.5e6, 23_040),
    "mistral-7b-v0.3": (7.248e9, 131_072),
    "qwen2.5-7b": (7.616e9, 57_344),
    "qwen3-8b": (8.19e9, 147_456),
    "qwen3-32b": (32.76e9, 262_144),
}


def test_every_shape_is_checked_against_a_published_number() -> None:
    assert set(SHAPES) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_kv_bytes_are_the_published_ones(name: str) -> None:
    num_params, kv_bytes = PUBLISHED[name]

    assert SHAPES[name].num_params == pytest.approx(num_params, rel=0.01)
    assert SHAPES[name].kv_bytes_per_token == kv_bytes


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_shape_names_its_source_and_itself(name: str) -> None:
    assert SHAPES[name].name == name
    assert "config.json" in SHAPES[name].source


def test_every_gpu_names_its_source() -> None:
    assert all(gpu.source for gpu in GPUS.values())


def test_flop_per_kv_byte_is_twice_n_over_b() -> None:
    shape = SHAPES["llama-3.1-8b"]

    ratio = flop_per_kv_byte(shape.num_params, shape.kv_bytes_per_token)

    assert ratio == pytest.approx(122_532, rel=1e-3)


def test_prefill_flops_sum_up_what_each_token_attends_to() -> None:
    tokens, layers, heads, size = 50, 3, 4, 8
    by_hand = sum(2 * 1000 + 4 * layers * heads * size * (t + 0.5) for t in range(tokens))

    flops = prefill_flops(num_params=1000, num_layers=layers, num_query_heads=heads, head_dim=size, num_tokens=tokens)

    assert flops == pytest.approx(by_hand)


@pytest.mark.parametrize(("tokens", "expected_gb_per_s"), [(1, 4.0), (8192, 3.6), (65_536, 1.9)])
def test_break_even_bandwidth_falls_with_the_prompt(tokens: int, expected_gb_per_s: float) -> None:
    rate = break_even_bandwidth(SHAPES["llama-3.1-8b"], GPUS["h100-sxm"], 0.5, num_tokens=tokens)

    assert rate / 1e9 == pytest.approx(expected_gb_per_s, abs=0.1)


@pytest.mark.parametrize(("mfu", "tokens"), [(0.0, 1), (1.1, 1), (0.5, 0)])
def test_break_even_bandwidth_refuses_impossible_conditions(mfu: float, tokens: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        break_even_bandwidth(SHAPES["qwen3-8b"], GPUS["h200"], mfu, num_tokens=tokens)


def test_layers_that_fit_counts_weights_and_cache() -> None:
    torch = pytest.importorskip("torch")
    shape = SHAPES["llama-3.1-8b"]
    context = 10_000
    fixed = shape.fixed_params * 2
    layer = shape.layer_params * 2 + context * 4096  # 2 x 8 heads x 128 x 2 bytes

    def fit(free_bytes: int) -> int:
        return layers_that_fit(shape, torch.bfloat16, free_bytes, context)

    assert fit(fixed - 1) == 0
    assert fit(fixed + layer - 1) == 0
    assert fit(fixed + 5 * layer) == 5
    assert fit(10**15) == 32


def test_float32_needs_twice_the_room() -> None:
    torch = pytest.importorskip("torch")
    shape = replace(SHAPES["smollm2-135m"], num_layers=1000)

    half = layers_that_fit(shape, torch.bfloat16, 10**9, 1000)
    full = layers_that_fit(shape, torch.float32, 2 * 10**9, 1000)

    assert half == full
