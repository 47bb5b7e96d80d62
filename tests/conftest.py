"""Command lines to run; models for the adapters' tests: tiny ones with random weights, and the real one."""

import importlib.util

import pytest

from kvtier import cli

collect_ignore_glob = [] if importlib.util.find_spec("transformers") else ["integrations/*"]


@pytest.fixture
def said(capsys):
    """Runs a command line and gives its exit status, output and errors."""

    def run(*words):
        try:
            status = cli.main([*map(str, words)])
        except SystemExit as stopped:
            status = stopped.code
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


@pytest.fixture(scope="session")
def tiny():
    """Makes causal LMs of two layers, 128 words and no end-of-sequence token, in eval mode.

    Without further settings, equal arguments give the same object: copy it before changing it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made = {}

    def make(kind="llama", *, dtype="float32", seed=0, **config):
        if not config and (kind, dtype, seed) in made:
            return made[kind, dtype, seed]
        torch.manual_seed(seed)
        sizes = {
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 128,
            "max_position_embeddings": 1024,
            "eos_token_id": None,
            **config,
        }
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes), dtype=getattr(torch, dtype))
        model.requires_grad_(False).eval()
        return model if config else made.setdefault((kind, dtype, seed), model)

    return make


@pytest.fixture(scope="session")
def smollm2():
    """The real model in float32, and its tokenizer; fetched the first time."""
    import torch
    from lib.model import ensure_smollm2, load_model

    return load_model(ensure_smollm2(progress=False), torch.float32)


@pytest.fixture
def open_lm():
    """Opens models with a store, sizes in blocks, and closes them after the test."""
    from kvtier.integrations.transformers import CachedLM, namespace_of

    opened = []

    def make(model, path=None, *, block_tokens=16, chunk_tokens=None, device=0, host=0, disk=0, **options):
        size = namespace_of(model, block_tokens=block_tokens).spec.block_bytes
        sizes = {"device": device * size, "host": host * size, "disk": disk * size}
        opened.append(
            CachedLM.open(model, path, block_tokens=block_tokens, chunk_tokens=chunk_tokens, **sizes, **options)
        )
        return opened[-1]

    yield make
    for lm in opened:
        lm.close()
