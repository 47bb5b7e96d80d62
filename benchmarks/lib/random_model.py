"""A transformers model of a true geometry with random weights, made in seconds.

    meta device (shapes only)  ->  to_empty(device)  ->  copy one bank of noise over everything

The usual way initialises every weight twice with a serial generator: minutes for 8B on a CPU.
Speed does not depend on the values as long as they stay finite, so one bank of uniform noise
is drawn and repeated. Its length is prime: no two rows of a matrix start at the same place.
"""

import os
from typing import TYPE_CHECKING, Any

from .shapes import Shape

if TYPE_CHECKING:
    import torch

_BANK_NUMBERS = 4_194_301  # the largest prime below 2**22: 8 MB of bfloat16
_HALF_WIDTH = 0.02 * 3**0.5  # uniform noise with the usual standard deviation of 0.02


def free_bytes(device: "torch.device") -> int:
    """Memory of a device, or of the machine, that is free now."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def random_model(
    shape: Shape,
    *,
    num_layers: int | None = None,
    dtype: "torch.dtype",
    device: "torch.device | str" = "cpu",
    seed: int = 0,
    attn: str = "sdpa",
) -> Any:
    """Build a causal language model that is as fast as the real one and says nothing.

    Args:
        shape: Geometry to follow; all but the number of layers is kept.
        num_layers: Layers to build, None for all; see ``lib.shapes.layers_that_fit``.
        dtype: Of the weights, and so of the KV cache.
        device: Where the weights are created; they never pass through another.
        seed: Equal seeds give equal weights on the same kind of device.
        attn: transformers' attention implementation.

    Returns:
        ``LlamaForCausalLM`` or its Mistral, Qwen2 or Qwen3 sibling, in eval mode, frozen, with
        full attention in every layer.

    Raises:
        ValueError: Fewer than one layer, or more than the shape has.
    """
    import torch  # a list of shapes must not pay for torch
    from transformers import AutoModelForCausalLM

    factory: Any = AutoModelForCausalLM  # its methods carry no types
    layers = shape.num_layers if num_layers is None else num_layers
    if not 1 <= layers <= shape.num_layers:
        raise ValueError(f"{shape.name} has 1 to {shape.num_layers} layers, asked for {layers}")
    with torch.device("meta"):
        model = factory.from_config(_config(shape, layers), dtype=dtype, attn_implementation=attn)
    model.to_empty(device=device)
    model.tie_weights()  # to_empty gave a tied pair two tensors
    rotary = model.model.rotary_emb  # its buffers are computed, not loaded: compute them again
    model.model.rotary_emb = type(rotary)(model.config).to(device)
    _fill(model, torch.Generator(device).manual_seed(seed))
    return model.requires_grad_(False).eval()


def _config(shape: Shape, num_layers: int) -> Any:
    """The transformers config of a shape, without sliding windows."""
    from transformers import AutoConfig

    window = {"sliding_window": None} if shape.model_type == "mistral" else {}
    return AutoConfig.for_model(
        shape.model_type,
        num_hidden_layers=num_layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_attention_heads=shape.num_query_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.context_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tied_embeddings,
        **window,
    )


def _fill(model: Any, generator: "torch.Generator") -> None:
    """Norms to one, biases to zero, every matrix from the bank, each where the last one ended."""
    import torch

    some = next(model.parameters())
    bank = torch.empty(_BANK_NUMBERS, dtype=some.dtype, device=some.device)
    bank.uniform_(-_HALF_WIDTH, _HALF_WIDTH, generator=generator)
    cursor = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            flat, at = parameter.view(-1), 0
            while at < flat.numel():
                take = min(flat.numel() - at, _BANK_NUMBERS - cursor)
                flat[at : at + take] = bank[cursor : cursor + take]
                at, cursor = at + take, (cursor + take) % _BANK_NUMBERS
