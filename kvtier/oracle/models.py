"""The model that the oracle asks, and the prompts it asks it.

Nothing is downloaded: a model comes from a directory, or is a tiny random Llama. Its weights are drawn
wider than a real initialisation, so that its attention is uneven and a wrong key or value shows in the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from kvtier.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16")

_TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 8192,
    "initializer_range": 0.2,
    "eos_token_id": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model that any process can load alike."""

    directory: str | None = None
    """Of a transformers causal LM; None is the tiny random one."""

    dtype: str = "float32"
    """One of ``DTYPES``."""

    device: str = "cpu"
    seed: int = 0
    """Of the random weights."""

    def load(self) -> Any:
        """The model in eval mode.

        Raises:
            ConfigError: There is no such device, or the directory has no model that can be loaded.
        """
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as exc:
            raise ConfigError(f"{self.device!r} is not a device of this machine: {str(exc).splitlines()[0]}") from exc
        factory: Any = AutoModelForCausalLM  # its methods carry no types
        dtype = getattr(torch, self.dtype)
        if self.directory is None:
            torch.manual_seed(self.seed)
            model = factory.from_config(AutoConfig.for_model("llama", **_TINY), dtype=dtype)
        else:
            if not Path(self.directory, "config.json").is_file():
                raise ConfigError(f"{self.directory!r} has no config.json; give the directory of a transformers model")
            try:
                model = factory.from_pretrained(self.directory, dtype=dtype, local_files_only=True)
            except (OSError, ValueError) as exc:
                raise ConfigError(f"the model in {self.directory!r} cannot be loaded: {exc}") from exc
        return model.to(self.device).requires_grad_(False).eval()

    @property
    def label(self) -> str:
        """How a report names it."""
        return f"random llama, seed {self.seed}" if self.directory is None else Path(self.directory).resolve().name


def make_prompts(count: int, num_tokens: int, *, block_tokens: int, vocab: int, seed: int) -> list[list[int]]:
    """Random prompts of ``num_tokens`` token ids and a few less, so that they end at all places of a block.

    Every second one shares its first half with the one before, so that a hit can be part of a prompt.
    """
    random = np.random.default_rng(seed)
    prompts: list[list[int]] = []
    for number in range(count):
        ids = random.integers(0, vocab, num_tokens - number * 5 % block_tokens).tolist()
        if number % 2:
            half = num_tokens // 2
            ids[:half] = prompts[-1][:half]
        prompts.append(ids)
    return prompts
