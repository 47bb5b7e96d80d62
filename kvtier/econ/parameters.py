"""How many parameters a decoder has, and how many of them one token meets.

    total  = tables + layers x (attention + norms + MLP or router and experts) + last norm
    active = total - experts that a token is not routed to

Counted from the config, matrix by matrix, because the round number in a model's name is off by up
to a tenth, and because nobody publishes the active ones to three digits.

The embedding table counts as active although it is looked up rather than multiplied: published
active counts include it, and the output layer that has the same size is multiplied.

Source: the modelling code of each family in transformers 5; the tests compare with its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvtier.econ.figures import unknown_name
from kvtier.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the modelling code of one ``model_type`` fixes and its config does not say."""

    qkv_bias: bool | None = None
    """Biases of queries, keys and values; None if ``attention_bias`` decides, which then is the output's as well."""

    out_bias: bool = True
    """Whether ``attention_bias`` gives the output projection a bias."""

    qk_norm: bool | None = False
    """Norms of queries and keys per head; None if ``use_qk_norm`` decides."""

    norms: int = 2
    """Norms of a layer, of the hidden size each."""

    tied: bool = False
    """Tied embeddings where ``tie_word_embeddings`` is not said."""

    expert_bias: bool = False
    """Biases in the router and the experts."""

    sinks: bool = False
    """One learnt attention sink a query head."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "mistral": Family(qkv_bias=False, out_bias=False),
    "mixtral": Family(qkv_bias=False, out_bias=False),
    "qwen2": Family(qkv_bias=True, out_bias=False),
    "qwen3": Family(qk_norm=True),
    "qwen3_moe": Family(qk_norm=True),
    "phi3": Family(qkv_bias=False, out_bias=False),
    "gemma2": Family(norms=4, tied=True),
    "gemma3_text": Family(qk_norm=True, norms=4, tied=True),
    "gpt_oss": Family(expert_bias=True, sinks=True),
    "glm4_moe": Family(out_bias=False, qk_norm=None),
    "deepseek_v3": Family(),
    "kimi_k2": Family(),
}


class Fields:
    """A config whose missing fields are named, all that one question needs at once."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self._config = config
        self.where = where

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or the default where it is absent or null."""
        value = self._config.get(name)
        return default if value is None else value

    def flag(self, name: str) -> bool:
        """A field that is true or false; absent is false."""
        return bool(self.get(name, default=False))

    def counts(self, *names: str) -> list[int]:
        """Fields that are whole numbers of at least 1.

        Raises:
            ConfigError: Some are missing, or no such numbers; all of them are named.
        """
        missing = [name for name in names if self._config.get(name) is None]
        if missing:
            raise ConfigError(f"{self.where}: the config has no {', '.join(missing)}")
        values = [self._config[name] for name in names]
        for name, value in zip(names, values, strict=True):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{self.where}: {name} must be a whole number of at least 1, got {value!r}")
        return values

    def count(self, name: str, default: int = 0) -> int:
        """A field that is a whole number of at least 0, or the default where it is absent or null.

        Raises:
            ConfigError: It is something else.
        """
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"{self.where}: {name} must be a whole number of at least 0, got {value!r}")
        return value

    def family(self) -> Family:
        """The family that ``model_type`` names.

        Raises:
            ConfigError: There is no ``model_type``, or its parameters cannot be counted.
        """
        kind = self.get("model_type")
        if kind is None:
            raise ConfigError(f"{self.where}: the config has no model_type")
        if not isinstance(kind, str) or kind not in FAMILIES:
            raise ConfigError(f"{self.where}: {unknown_name('model_type', str(kind), FAMILIES)}")
        return FAMILIES[kind]


def head_dim(fields: Fields) -> int:
    """Numbers in one head: said, or the hidden size shared among the query heads."""
    if fields.get("head_dim") is not None:
        return fields.counts("head_dim")[0]
    hidden, heads = fields.counts("hidden_size", "num_attention_heads")
    return hidden // heads


def kv_heads(fields: Fields) -> int:
    """Heads of keys and of values: as many as of queries where the config does not say otherwise (MHA)."""
    return fields.counts("num_attention_heads" if fields.get("num_key_value_heads") is None else "num_key_value_heads")[
        0
    ]


def count_parameters(fields: Fields) -> tuple[int, int]:
    """All parameters of a decoder and those that one token meets.

    Args:
        fields: A config in the names of transformers.

    Returns:
        ``(total, active)``; equal for a dense model.

    Raises:
        ConfigError: The family is unknown, or a field it needs is missing.

    Example:
        >>> count_parameters(Fields({"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
        ...     "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        ...     "vocab_size": 128256, "tie_word_embeddings": False}, "llama-3.1-8b"))
        (8030261248, 8030261248)

    Leaves out:
        Vision towers, extra heads that predict tokens further ahead, and adapters.
    """
    family = fields.family()
    layers, hidden, vocab = fields.counts("num_hidden_layers", "hidden_size", "vocab_size")
    tables = 1 if fields.get("tie_word_embeddings", family.tied) else 2
    attention = _mla(fields) if fields.get("kv_lora_rank") is not None else _attention(fields, family)
    shared = tables * vocab * hidden + hidden + layers * (attention + family.norms * hidden)
    num_moe = _num_moe_layers(fields, layers)
    dense = 3 * hidden * fields.counts("intermediate_size")[0] if num_moe < layers else 0
    if fields.flag("mlp_bias") and dense:
        dense += 2 * fields.counts("intermediate_size")[0] + hidden
    all_mlp, met_mlp = _moe(fields, family) if num_moe else (0, 0)
    outside = shared + (layers - num_moe) * dense
    return outside + num_moe * all_mlp, outside + num_moe * met_mlp


def _attention(fields: Fields, family: Family) -> int:
    """Parameters of one layer of multi-head or grouped-query attention."""
    hidden, heads = fields.counts("hidden_size", "num_attention_heads")
    size = head_dim(fields)
    q_width, kv_width = heads * size, kv_heads(fields) * size
    said = fields.flag("attention_bias")
    qkv_bias = said if family.qkv_bias is None else family.qkv_bias
    qk_norm = fields.flag("use_qk_norm") if family.qk_norm is None else family.qk_norm
    biases = qkv_bias * (q_width + 2 * kv_width) + (said and family.out_bias) * hidden
    return hidden * (2 * q_width + 2 * kv_width) + biases + qk_norm * 2 * size + family.sinks * heads


def _mla(fields: Fields) -> int:
    """Parameters of one layer of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""
    hidden, heads, latent, rope, nope, value = fields.counts(
        "hidden_size", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"
    )
    bias = fields.flag("attention_bias")
    q_width = heads * (nope + rope)
    rank = fields.count("q_lora_rank")
    queries = hidden * rank + rank + rank * q_width + bias * rank if rank else hidden * q_width
    keys = hidden * (latent + rope) + latent + latent * heads * (nope + value) + bias * (latent + rope)
    return queries + keys + heads * value * hidden + bias * hidden


def _num_moe_layers(fields: Fields, layers: int) -> int:
    """Layers whose MLP is a router and experts."""
    if num_experts(fields) is None:
        return 0
    dense = set(fields.get("mlp_only_layers", []))
    step = fields.count("decoder_sparse_step", 1)
    first = fields.count("first_k_dense_replace")
    return sum(n >= first and n not in dense and step > 0 and (n + 1) % step == 0 for n in range(layers))


def num_experts(fields: Fields) -> int | None:
    """Experts a layer chooses among, under whichever name the family has for them; None in a dense model."""
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    found = next((name for name in names if fields.get(name) is not None), None)
    return None if found is None else fields.counts(found)[0]


def _moe(fields: Fields, family: Family) -> tuple[int, int]:
    """Parameters of a layer's router and experts: all, and those that one token meets."""
    hidden, chosen = fields.counts("hidden_size", "num_experts_per_tok")
    width = fields.counts(
        "intermediate_size" if fields.get("moe_intermediate_size") is None else "moe_intermediate_size"
    )[0]
    experts = num_experts(fields)
    assert experts is not None
    one = 3 * hidden * width + family.expert_bias * (2 * width + hidden)
    router = experts * (hidden + family.expert_bias)
    shared = fields.count("n_shared_experts") * 3 * hidden * width
    return router + shared + experts * one, router + shared + chosen * one
