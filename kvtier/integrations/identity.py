"""What a transformers model is to a store: its geometry, its fingerprint, and whether it can be served.

A model is served only if everything it remembers of a prefix is plain keys and values that do
not depend on what follows. That is checked, not assumed: the kinds of its cache layers are
looked at, and a short prompt is run with and without a cache restored from bytes.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

import torch
import xxhash
from transformers.cache_utils import DynamicCache, DynamicLayer

from kvtier.errors import ConfigError, UnsupportedModelError
from kvtier.integrations.cache import buffered_cache
from kvtier.spec import DEFAULT_BLOCK_TOKENS, KVSpec

#: Config entries that change from load to load, or cannot change KV.
_NOT_IDENTITY = {
    "_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache", "return_dict",
    "output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type", "bos_token_id",
    "eos_token_id", "pad_token_id", "unk_token_id", "max_position_embeddings", "chunk_size_feed_forward",
}  # fmt: skip

#: Rotary embeddings whose angles depend on the length of the whole prompt.
_LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}

_PIECE_BYTES = 64 << 20


def kv_spec(model: Any, block_tokens: int = DEFAULT_BLOCK_TOKENS) -> KVSpec:
    """Geometry of a causal LM's cache, found by running two tokens through it.

    Raises:
        UnsupportedModelError: kvtier could not restore this model's cache exactly; names why.
        ConfigError: The model is in training mode.
    """
    _refuse_by_config(model)
    cache = _run(model, [[0, 0]], DynamicCache(config=model.config))[1]
    shapes = {tuple(part.shape) for layer in cache.layers for part in (layer.keys, layer.values)}
    if len(shapes) != 1:
        raise _refusal(model, f"keys and values do not all have one shape, but {sorted(shapes)}")
    (_, kv_heads, _, head_dim) = next(iter(shapes))
    spec = KVSpec(
        layers=len(cache.layers),
        kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=str(cache.layers[0].keys.dtype).removeprefix("torch."),
        block_tokens=block_tokens,
    )
    _try_restoring(model, spec)
    return spec


def rope_of(model: Any) -> str:
    """What turns positions into angles, from the config, as text for a person; the fingerprint covers it as well."""
    parameters = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    return json.dumps(parameters, sort_keys=True, default=str) if parameters else ""


def fingerprint(model: Any) -> str:
    """A digest of what shapes a model's KV: every byte of every weight, the config, the attention kernel's name.

    Each tensor is hashed whole with XXH3-128 and the list of digests with BLAKE2b: memory speed
    on the CPU, link speed from a GPU. It cannot see code: another modelling file, library version
    or processor over the same weights has the same fingerprint.

    Raises:
        ConfigError: A weight is not materialised (meta device), so there is nothing to hash.
    """
    digest = blake2b(digest_size=32, person=b"kvtier-model-v1")
    config = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_IDENTITY}
    config["attention kernel"] = model.config._attn_implementation  # noqa: SLF001  # there is no public name for it
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        if tensor.device.type == "meta":
            raise ConfigError(f"{name} is on the meta device; load the weights before fingerprinting the model")
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode() + _hash_tensor(tensor.detach()))
    return digest.hexdigest()


def _hash_tensor(tensor: torch.Tensor) -> bytes:
    raw = tensor.contiguous().view(-1).view(torch.uint8)
    state = xxhash.xxh3_128()
    for start in range(0, raw.numel(), _PIECE_BYTES):
        state.update(raw[start : start + _PIECE_BYTES].cpu().numpy().data)
    return state.digest()


def _refusal(model: Any, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{type(model).__name__} cannot be served exactly: {reason}")


def _refuse_by_config(model: Any) -> None:
    config = model.config
    if model.training:
        raise ConfigError(f"{type(model).__name__} is in training mode; call model.eval() first")
    if getattr(config, "is_encoder_decoder", False):
        raise _refusal(model, "an encoder-decoder model's keys depend on the encoder's input")
    kinds = {type(layer).__name__ for layer in DynamicCache(config=config).layers if type(layer) is not DynamicLayer}
    if kinds:
        raise _refusal(model, f"it keeps state that is not plain keys and values: {', '.join(sorted(kinds))}")
    text_config = config.get_text_config(decoder=True)
    rope = getattr(text_config, "rope_parameters", None) or {}
    nested = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    for parameters in nested:
        if parameters.get("rope_type") in _LENGTH_DEPENDENT_ROPE:
            raise _refusal(model, f"its rotary embedding ({parameters['rope_type']}) depends on the prompt's length")


def _run(model: Any, ids: list[list[int]], cache: Any) -> tuple[torch.Tensor, Any]:
    """Logits and the cache after a forward pass; refuses a model that does not fill the cache."""
    before = cache.get_seq_length()
    try:
        with torch.no_grad():
            output = model(input_ids=torch.tensor(ids, device=model.device), past_key_values=cache, use_cache=True)
    except (TypeError, ValueError, NotImplementedError) as exc:
        raise _refusal(model, f"its forward does not run with a DynamicCache: {exc}") from exc
    filled = [layer for layer in cache.layers if layer.is_initialized and layer.keys is not None]
    if not filled or len(filled) < len(cache.layers) or cache.get_seq_length() != before + len(ids[0]):
        raise _refusal(model, "its forward does not keep one key and value per layer and token in the cache")
    return output.logits, cache


def _try_restoring(model: Any, spec: KVSpec) -> None:
    """Two steps with a cache rebuilt from bytes in between must give the very logits of two steps without."""
    _, cache = _run(model, [[0, 1, 2, 3]], DynamicCache(config=model.config))
    whole = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
    buffer = torch.zeros((1, *whole.shape[:3], 8, spec.head_dim), dtype=whole.dtype, device=whole.device)
    buffer[0, :, :, :, :4] = whole
    expected, _ = _run(model, [[4]], cache)
    restored, _ = _run(model, [[4]], buffered_cache(model.config, buffer, 4))
    if not torch.equal(expected, restored):
        raise _refusal(model, "a cache restored from keys and values gave other logits: it keeps more than that")
