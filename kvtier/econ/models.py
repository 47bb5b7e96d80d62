"""What a model's config says about the cost of its KV cache.

    b       = sum over full layers of numbers cached per token x bytes of one     bytes per token
    window  = sum over windowed layers of the same x window                       bytes per sequence
    FLOP    = 2 N_active (stop - start) + sum over layers a x (tokens attended to)

    numbers per token and layer:  2 kv_heads head_dim, or kv_lora_rank + qk_rope_head_dim for MLA
    a, FLOP per query and key:    4 heads head_dim,    or 2 heads (qk_nope + qk_rope + v)

Whether a stored prefix pays is decided by FLOP / b, and both come from the config file alone: a
table typed by hand would be one more thing to be wrong. A windowed layer costs a constant per
sequence however long that gets, which is why it is kept apart from the bytes per token.

Layers that keep a state instead of keys and values (Mamba, linear attention) are refused by name:
their state cannot be cut at a block, so none of what follows holds for them.

Source: the 2 N rule is that of Kaplan et al., arXiv 2001.08361, section 2.1; MLA as in DeepSeek-V2,
arXiv 2405.04434, equations 9 to 19; configs in the names that transformers gives the fields.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from kvtier.econ.figures import unknown_name
from kvtier.econ.parameters import Fields, count_parameters, head_dim, kv_heads
from kvtier.errors import ConfigError

#: Bytes of one cached number. int4 leaves out its scales, which depend on the format.
KV_DTYPES: Mapping[str, float] = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "int8": 1, "int4": 0.5}

#: Bytes of one weight as published. MXFP4 has a scale byte for 32 weights of four bits.
_WEIGHT_BYTES = {"fp8": 1.0, "mxfp4": 0.53125}

#: Every how many layers one is full, where the config has a window and does not say.
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "gpt_oss": 2}

_WINDOWED = {"sliding_attention": True, "full_attention": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Layers that cache and attend alike."""

    num_layers: int

    numbers_per_token: int
    """Numbers that one layer caches for one token."""

    flop_per_pair: int
    """FLOP of one layer for one query token and one token that it attends to, all heads."""

    window_tokens: int | None
    """Tokens that a query sees at most, itself included; None if it sees all before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder as its config describes it."""

    name: str
    source: str
    date: str

    total_params: int
    active_params: int
    """Parameters that one token meets: fewer than all in a mixture of experts."""

    weight_bytes_per_param: float
    """As published: 2 for bfloat16, less where ``quantization_config`` says so."""

    groups: tuple[LayerGroup, ...]

    def bytes_per_token(self, dtype: str = "bfloat16") -> int:
        """Bytes of KV that each further token adds, over all layers without a window.

        Raises:
            ConfigError: A dtype that is not in ``KV_DTYPES``.

        Example:
            >>> load_model("llama-3.1-8b").bytes_per_token()
            131072
        """
        numbers = sum(g.num_layers * g.numbers_per_token for g in self.groups if g.window_tokens is None)
        return round(numbers * _itemsize(dtype))

    def window_bytes(self, dtype: str = "bfloat16") -> int:
        """Bytes of KV that a sequence holds in its windowed layers, once these are full.

        Example:
            >>> load_model("gpt-oss-20b").window_bytes()
            3145728
        """
        return self.prefix_bytes(self.window_tokens, dtype) - self.window_tokens * self.bytes_per_token(dtype)

    @property
    def window_tokens(self) -> int:
        """The longest window; 0 without one."""
        return max((g.window_tokens or 0 for g in self.groups), default=0)

    def prefix_bytes(self, num_tokens: int, dtype: str = "bfloat16") -> int:
        """Bytes of KV of a prefix, all layers; no more than the window of those that have one.

        Leaves out:
            That some caches keep one token less than the window, because the query brings its own.
        """
        held = (
            g.num_layers * g.numbers_per_token * min(num_tokens, g.window_tokens or num_tokens) for g in self.groups
        )
        return round(sum(held) * _itemsize(dtype))

    def prefill_flops(self, start_tokens: int, stop_tokens: int) -> float:
        """FLOP to compute the tokens from ``start`` up to ``stop``, all before ``start`` being cached.

        Example:
            One token of an 8B model at the head of a prompt, and the same behind 64 Ki others:

            >>> model = load_model("llama-3.1-8b")
            >>> f"{model.prefill_flops(0, 1):.3g} {model.prefill_flops(65535, 65536):.3g}"
            '1.61e+10 5.04e+10'

        Source:
            2 N per token; attention under a causal mask, t pairs at position t, summed.

        Leaves out:
            Norms, softmax, sampling; that the embedding table is looked up and not multiplied, and that the
            output layer is needed for the last token alone: tiny models are overstated by up to a fifth.
        """
        _check_span(start_tokens, stop_tokens)
        linear = 2.0 * self.active_params * (stop_tokens - start_tokens)
        pairs = (
            g.num_layers
            * g.flop_per_pair
            * (_pairs(stop_tokens, g.window_tokens) - _pairs(start_tokens, g.window_tokens))
            for g in self.groups
        )
        return linear + sum(pairs)

    def flop_per_kv_byte(self, dtype: str = "bfloat16") -> float:
        """2 N / b: FLOP saved per byte loaded by a short prompt; divide achieved FLOP/s by it for the break-even.

        Example:
            >>> round(load_model("llama-3.1-8b").flop_per_kv_byte() / 1e3)
            123
        """
        return 2 * self.active_params / self.bytes_per_token(dtype)

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights as published."""
        return self.total_params * self.weight_bytes_per_param


def _itemsize(dtype: str) -> float:
    if dtype not in KV_DTYPES:
        raise ConfigError(unknown_name("KV dtype", dtype, KV_DTYPES))
    return KV_DTYPES[dtype]


def _check_span(start_tokens: int, stop_tokens: int) -> None:
    if not 0 <= start_tokens <= stop_tokens:
        raise ConfigError(f"tokens from {start_tokens} to {stop_tokens}: expected 0 <= start <= stop")


def _pairs(tokens: int, window: int | None) -> float:
    """Queries times tokens attended to by the first ``tokens`` of a sequence: the integral of min(t, window)."""
    if window is None or tokens <= window:
        return tokens * tokens / 2
    return window * window / 2 + (tokens - window) * float(window)


def model_from_config(config: Mapping[str, Any], *, name: str, source: str, date: str) -> Model:
    """A model from the fields of its config.json.

    Args:
        config: As published; the text part of a multimodal one is taken out by itself.
        name: For tables.
        source: Where the config is from.
        date: When it was.

    Raises:
        ConfigError: A field is missing or unusable, and named; the family is unknown; or a layer keeps no
            keys and values.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = {"model_type": f"{config.get('model_type')}_text", **text}
    fields = Fields(config, name)
    total, active = count_parameters(fields)
    quant = fields.get("quantization_config", {})
    return Model(
        name=name,
        source=source,
        date=date,
        total_params=total,
        active_params=active,
        weight_bytes_per_param=_WEIGHT_BYTES.get(str(quant.get("quant_method")), 2.0)
        if isinstance(quant, Mapping)
        else 2.0,
        groups=_groups(fields),
    )


def _groups(fields: Fields) -> tuple[LayerGroup, ...]:
    if fields.get("kv_lora_rank") is None:
        (heads,), size = fields.counts("num_attention_heads"), head_dim(fields)
        numbers, flop = 2 * kv_heads(fields) * size, 4 * heads * size
    else:
        heads, latent, rope, nope, value = fields.counts(
            "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"
        )
        numbers, flop = latent + rope, 2 * heads * (nope + rope + value)
    return tuple(
        LayerGroup(num_layers=count, numbers_per_token=numbers, flop_per_pair=flop, window_tokens=window)
        for window, count in Counter(_windows(fields)).items()
    )


def _windows(fields: Fields) -> list[int | None]:
    """The window of each layer, None for those that see everything."""
    (layers,) = fields.counts("num_hidden_layers")
    types = fields.get("layer_types")
    if types is not None:
        return _typed_windows(fields, types, layers)
    kind = fields.get("model_type")
    wanted = fields.get("use_sliding_window", not kind.startswith("qwen"))
    if not wanted or fields.get("sliding_window") is None:
        return [None] * layers
    (window,) = fields.counts("sliding_window")
    pattern = fields.count("sliding_window_pattern", _PATTERNS.get(kind, 0))
    first = fields.count("max_window_layers") if kind in {"qwen2", "qwen3"} else 0
    return [None if n < first or (pattern and (n + 1) % pattern == 0) else window for n in range(layers)]


def _typed_windows(fields: Fields, types: list[str], layers: int) -> list[int | None]:
    if unknown := sorted({str(kind) for kind in types} - set(_WINDOWED)):
        raise ConfigError(
            f"{fields.where}: layers of type {', '.join(unknown)} keep no keys and values that can be cut"
        )
    if len(types) != layers:
        raise ConfigError(f"{fields.where}: layer_types has {len(types)} entries, num_hidden_layers says {layers}")
    if not any(_WINDOWED[kind] for kind in types):
        return [None] * layers
    (window,) = fields.counts("sliding_window")
    return [window if _WINDOWED[kind] else None for kind in types]


def load_config(path: Path) -> Model:
    """A model from a config.json, or from the directory that has one.

    Raises:
        ConfigError: It cannot be read, is no JSON object, or lacks what ``model_from_config`` needs.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: not a readable config.json: {exc}") from exc
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(config).__name__}")
    name = config.get("_name_or_path") or path.absolute().parent.name
    return model_from_config(config, name=name, source=str(path), date=_day(path))


def _day(path: Path) -> str:
    """When a file was last changed."""
    return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).date().isoformat()


def load_model(name: str) -> Model:
    """A model that comes with kvtier, by its name or another one it goes by; case does not matter.

    Raises:
        ConfigError: There is none of that name; near ones are named.
    """
    names = _names()
    if name.lower() not in names:
        raise ConfigError(f"{unknown_name('model', name, names)}; or give its config.json")
    return _shipped()[names[name.lower()]]


def model_names() -> list[str]:
    """The models that come with kvtier, without their other names."""
    return sorted(_shipped())


@cache
def _shipped() -> dict[str, Model]:
    return {model.name: model for model, _ in map(_read_entry, _entries())}


@cache
def _names() -> dict[str, str]:
    found = [_read_entry(entry) for entry in _entries()]
    return {alias.lower(): model.name for model, aliases in found for alias in (model.name, *aliases)}


def _entries() -> list[tuple[str, str]]:
    folder = files("kvtier.econ") / "data" / "models"
    return sorted((item.name, item.read_text()) for item in folder.iterdir() if item.name.endswith(".json"))


def _read_entry(entry: tuple[str, str]) -> tuple[Model, list[str]]:
    return read_model(json.loads(entry[1]), entry[0])


def read_model(raw: Mapping[str, Any], where: str) -> tuple[Model, list[str]]:
    """A model and its other names from ``{name, aliases, source, date, config}``.

    Raises:
        ConfigError: One of these is missing: a geometry without a source is refused like a price.
    """
    missing = [field for field in ("name", "source", "date", "config") if not raw.get(field)]
    if missing:
        raise ConfigError(f"{where}: has no {', '.join(missing)}; a model is used only with its source and date")
    model = model_from_config(raw["config"], name=raw["name"], source=raw["source"], date=raw["date"])
    return model, list(raw.get("aliases", []))
