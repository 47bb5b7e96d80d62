"""The geometry of public models, and what follows from it by arithmetic.

Whether a stored prefix is worth loading depends on two numbers of a model, N (parameters) and
b (KV bytes per token), and hardly on its weights. So a model of the true geometry with random
weights, cut to as many layers as fit, times like the real one:

    prefill FLOP   = 2 N n + 2 L Hq dh n^2        n tokens, L layers, Hq query heads of size dh
    break-even B/s = n b / (prefill FLOP / achieved FLOP/s)

The first term is one multiply-add per parameter and token; the second is attention under a
causal mask (4 L Hq dh t at position t, summed). Nothing here is measured, and what is computed
from a published number says so.

Source: the config.json each shape names. The Llama 3 rope scaling is left out: it changes
which angles are used, not how many.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

_BF16_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A dense decoder with grouped-query attention, as its published config describes it."""

    name: str
    """What ``--shape`` takes."""

    model_type: Literal["llama", "mistral", "qwen2", "qwen3"]
    """transformers' name of the family; it decides biases (qwen2) and q/k norms (qwen3)."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float

    tied_embeddings: bool
    """Whether the output layer is the embedding table, so that it is counted once."""

    context_tokens: int
    """``max_position_embeddings`` of the config: the longest prompt to ask for."""

    source: str
    """The published config the numbers are from."""

    @property
    def layer_params(self) -> int:
        """Parameters of one layer: attention, biases or q/k norms, MLP, two norms."""
        q_width = self.num_query_heads * self.head_dim
        kv_width = self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (2 * q_width + 2 * kv_width)
        extra = {"qwen2": q_width + 2 * kv_width, "qwen3": 2 * self.head_dim}
        mlp = 3 * self.hidden_size * self.intermediate_size
        return attention + extra.get(self.model_type, 0) + mlp + 2 * self.hidden_size

    @property
    def fixed_params(self) -> int:
        """Parameters outside the layers: embeddings, output layer unless tied, last norm."""
        tables = 1 if self.tied_embeddings else 2
        return tables * self.vocab_size * self.hidden_size + self.hidden_size

    @property
    def num_params(self) -> int:
        """All parameters, N."""
        return self.fixed_params + self.num_layers * self.layer_params

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values per token over all layers in bfloat16, b."""
        return self.num_layers * self.layer_kv_bytes(_BF16_BYTES)

    def layer_kv_bytes(self, itemsize: int) -> int:
        """Bytes of keys and values per token and layer, with numbers of ``itemsize`` bytes."""
        return 2 * self.num_kv_heads * self.head_dim * itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class GPU:
    """What a vendor publishes about a GPU."""

    name: str

    bf16_flop_per_s: float
    """Dense tensor-core peak with FP32 accumulation; never the doubled "sparse" figure."""

    memory_bytes: float
    """As sold: 80 GB is 80e9."""

    source: str
    """The data sheet. A peak without one is a rumour."""


def layers_that_fit(shape: Shape, dtype: "torch.dtype", free_bytes: int, context_tokens: int) -> int:
    """How many layers fit into memory together with their KV cache.

    Args:
        shape: The model.
        dtype: Of the weights and of the KV cache.
        free_bytes: Memory to fill.
        context_tokens: Tokens of KV to keep room for, over all sequences.

    Returns:
        Between 0 (not even the embeddings and one layer fit) and ``shape.num_layers``.

    Leaves out:
        Activations, logits and the allocator's losses; pass some 80 % of what is free.
    """
    per_layer = shape.layer_params * dtype.itemsize
    per_layer += context_tokens * shape.layer_kv_bytes(dtype.itemsize)
    left = free_bytes - shape.fixed_params * dtype.itemsize
    return max(0, min(shape.num_layers, left // per_layer))


def flop_per_kv_byte(params_active: int, kv_bytes_per_token: int) -> float:
    """2N/b: FLOP saved per byte loaded, for short prompts.

    The one number that says whether a model is an easy or a hard case for a KV store: 12,000
    for a 135M model, 120,000 for an 8B, 430,000 for a 70B. Attention (which adds to it with
    the prompt's length) is left out.
    """
    return 2 * params_active / kv_bytes_per_token


def prefill_flops(*, num_params: int, num_layers: int, num_query_heads: int, head_dim: int, num_tokens: int) -> float:
    """FLOP to prefill a prompt from nothing: 2 N n + 2 L Hq dh n^2.

    Causal: each token attends to those before it, so half of the n x n square is counted. A
    kernel that computes the whole square does more work than this, and not more useful work.

    Leaves out:
        Norms, rope, softmax and sampling. N includes the embedding table, which is looked up
        rather than multiplied, and the output layer for every token: small models are
        overstated (SmolLM2-135M by a fifth).
    """
    linear = 2.0 * num_params * num_tokens
    return linear + 2.0 * num_layers * num_query_heads * head_dim * num_tokens**2


def break_even_bandwidth(shape: Shape, gpu: GPU, mfu: float, *, num_tokens: int = 1) -> float:
    """Bytes/s at which loading a prompt's KV takes as long as computing it. Computed, not measured.

    Args:
        shape: The model; its KV in bfloat16.
        gpu: The device that would compute it.
        mfu: Share of the published peak that prefill reaches, above 0 and up to 1.
        num_tokens: Length of the prompt; long ones are slower to compute, so the answer falls.
            The default leaves attention out: achieved FLOP/s divided by 2N/b.

    Returns:
        Bytes per second, 1e9 to the GB. A tier faster than this beats recomputing.

    Raises:
        ValueError: An mfu outside (0, 1] or a prompt of no tokens.

    Example:
        >>> round(break_even_bandwidth(SHAPES["llama-3.1-8b"], GPUS["h100-sxm"], 0.5) / 1e9, 1)
        4.0
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu must be above 0 and at most 1, got {mfu}")
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be at least 1, got {num_tokens}")
    flops = prefill_flops(
        num_params=shape.num_params,
        num_layers=shape.num_layers,
        num_query_heads=shape.num_query_heads,
        head_dim=shape.head_dim,
        num_tokens=num_tokens,
    )
    return num_tokens * shape.kv_bytes_per_token * gpu.bf16_flop_per_s * mfu / flops


def _shape(
    name: str,
    model_type: Literal["llama", "mistral", "qwen2", "qwen3"],
    repo: str,
    *,
    sizes: tuple[int, int, int],
    heads: tuple[int, int, int],
    vocab: tuple[int, bool],
    rope: tuple[float, int],
) -> Shape:
    """One row of the table below."""
    return Shape(
        name=name,
        model_type=model_type,
        num_layers=sizes[0],
        hidden_size=sizes[1],
        intermediate_size=sizes[2],
        num_query_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=heads[2],
        vocab_size=vocab[0],
        tied_embeddings=vocab[1],
        rope_theta=rope[0],
        context_tokens=rope[1],
        source=f"config.json of {repo} on huggingface.co",
    )


# fmt: off
_ROWS = (
    # sizes: layers, hidden, MLP; heads: query, kv, size; vocab: size, tied; rope: theta, context
    _shape("llama-3.1-8b", "llama", "meta-llama/Llama-3.1-8B",
           sizes=(32, 4096, 14336), heads=(32, 8, 128), vocab=(128256, False), rope=(5e5, 131072)),
    _shape("llama-3.1-70b", "llama", "meta-llama/Llama-3.1-70B",
           sizes=(80, 8192, 28672), heads=(64, 8, 128), vocab=(128256, False), rope=(5e5, 131072)),
    _shape("llama-3.2-1b", "llama", "meta-llama/Llama-3.2-1B",
           sizes=(16, 2048, 8192), heads=(32, 8, 64), vocab=(128256, True), rope=(5e5, 131072)),
    _shape("smollm2-135m", "llama", "HuggingFaceTB/SmolLM2-135M-Instruct",
           sizes=(30, 576, 1536), heads=(9, 3, 64), vocab=(49152, True), rope=(1e5, 8192)),
    _shape("mistral-7b-v0.3", "mistral", "mistralai/Mistral-7B-v0.3",
           sizes=(32, 4096, 14336), heads=(32, 8, 128), vocab=(32768, False), rope=(1e6, 32768)),
    _shape("qwen2.5-7b", "qwen2", "Qwen/Qwen2.5-7B-Instruct",
           sizes=(28, 3584, 18944), heads=(28, 4, 128), vocab=(152064, False), rope=(1e6, 32768)),
    _shape("qwen3-8b", "qwen3", "Qwen/Qwen3-8B",
           sizes=(36, 4096, 12288), heads=(32, 8, 128), vocab=(151936, False), rope=(1e6, 40960)),
    _shape("qwen3-32b", "qwen3", "Qwen/Qwen3-32B",
           sizes=(64, 5120, 25600), heads=(64, 8, 128), vocab=(151936, False), rope=(1e6, 40960)),
)

SHAPES: Mapping[str, Shape] = {shape.name: shape for shape in _ROWS}

GPUS: Mapping[str, GPU] = {
    "h100-sxm": GPU(name="H100 SXM", bf16_flop_per_s=989e12, memory_bytes=80e9,
                    source="NVIDIA H100 data sheet (1,979 with sparsity, halved)"),
    "h200": GPU(name="H200", bf16_flop_per_s=989e12, memory_bytes=141e9,
                source="NVIDIA H200 data sheet (1,979 with sparsity, halved)"),
    "a100": GPU(name="A100 80GB", bf16_flop_per_s=312e12, memory_bytes=80e9,
                source="NVIDIA A100 data sheet"),
    "l40s": GPU(name="L40S", bf16_flop_per_s=362e12, memory_bytes=48e9,
                source="NVIDIA L40S data sheet"),
    "rtx-4090": GPU(name="RTX 4090", bf16_flop_per_s=165.2e12, memory_bytes=24e9,
                    source="NVIDIA Ada GPU architecture white paper, appendix A"),
}
# fmt: on
