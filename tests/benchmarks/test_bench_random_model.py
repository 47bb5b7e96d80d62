"""Random models: the true geometry, finite logits, the same weights for a seed."""

from dataclasses import replace
from typing import Any

import pytest
from lib.random_model import random_model
from lib.shapes import SHAPES, Shape

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", minversion="5")


def small(name: str) -> Shape:
    """A shape with narrow layers and few words, for tests that only need the family."""
    return replace(SHAPES[name], hidden_size=96, intermediate_size=160, head_dim=16, vocab_size=512)


def test_smollm2_keeps_its_geometry_with_two_layers() -> None:
    shape = SHAPES["smollm2-135m"]
    model = random_model(shape, num_layers=2, dtype=torch.float32)

    with torch.inference_mode():
        result = model(torch.arange(24)[None])

    assert result.logits.shape == (1, 24, shape.vocab_size)
    assert torch.isfinite(result.logits).all()
    assert len(result.past_key_values.layers) == 2
    assert result.past_key_values.layers[0].keys.shape == (1, 3, 24, 64)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mistral-7b-v0.3", "qwen2.5-7b", "qwen3-8b"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_family_has_the_parameters_counted_and_finite_logits(name: str, dtype: Any) -> None:
    shape = small(name)
    model = random_model(shape, num_layers=3, dtype=dtype)

    with torch.inference_mode():
        result = model(torch.arange(50)[None])

    assert type(model).__name__.lower() == f"{shape.model_type}forcausallm"
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == shape.fixed_params + 3 * shape.layer_params
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert torch.isfinite(result.logits).all()
    assert result.logits.float().std() > 0
    assert {type(layer).__name__ for layer in result.past_key_values.layers} == {"DynamicLayer"}


def test_positions_matter_because_the_rotary_table_is_real() -> None:
    shape = small("llama-3.1-8b")
    model = random_model(shape, num_layers=1, dtype=torch.float32)

    expected = shape.rope_theta ** -(torch.arange(0, 16, 2) / 16)

    assert torch.allclose(model.model.rotary_emb.inv_freq, expected)


def test_a_seed_gives_the_same_weights_and_another_seed_others() -> None:
    shape = small("qwen3-8b")
    first, again, other = (random_model(shape, num_layers=1, dtype=torch.float32, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_no_two_matrices_are_equal() -> None:
    model = random_model(small("llama-3.1-8b"), num_layers=2, dtype=torch.float32)
    one, two = (layer.mlp.up_proj.weight for layer in model.model.layers)

    assert not torch.equal(one, two)


def test_a_model_is_frozen_and_in_eval_mode() -> None:
    model = random_model(small("qwen2.5-7b"), num_layers=1, dtype=torch.float32)

    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("num_layers", [0, 33])
def test_an_impossible_number_of_layers_is_refused(num_layers: int) -> None:
    with pytest.raises(ValueError, match=r"llama-3\.1-8b has 1 to 32 layers"):
        random_model(SHAPES["llama-3.1-8b"], num_layers=num_layers, dtype=torch.float32)


@pytest.mark.gpu
def test_a_model_is_made_on_the_device_it_is_for() -> None:
    model = random_model(SHAPES["llama-3.1-8b"], num_layers=1, dtype=torch.bfloat16, device="cuda")

    with torch.inference_mode():
        result = model(torch.arange(50, device="cuda")[None])

    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert torch.isfinite(result.logits).all()
