"""The three verbs on raw tensors: what an inference loop of your own would call."""

import tempfile

import torch

import kvtier

spec = kvtier.KVSpec(layers=4, kv_heads=2, head_dim=64, dtype="bfloat16", block_tokens=16)
names = kvtier.Namespace(spec=spec, weights="digest of the weights that made this KV")
prompt = list(range(100))  # token ids: six whole blocks, and a tail that is never stored
num_blocks = len(prompt) // spec.block_tokens


def prefill(num_blocks: int) -> torch.Tensor:
    """Stands for a model: KV of whole blocks, [blocks, layers, K and V, heads, tokens, head_dim]."""
    return torch.randn(num_blocks, *spec.block_shape).to(torch.bfloat16)


def as_blocks(kv: torch.Tensor) -> list[torch.Tensor]:
    """The same memory as the store moves it: one uint8 buffer a block."""
    return list(kv.flatten(1).view(torch.uint8))


with tempfile.TemporaryDirectory() as directory:
    kv = prefill(num_blocks)
    with kvtier.open_store(directory, names, host="16 MiB", disk="64 MiB") as store:
        print("before  ", store.match(prompt))
        print("put     ", store.put(prompt, as_blocks(kv)))

    with kvtier.open_store(directory, names, host="16 MiB", disk="64 MiB") as store:  # after a restart
        loaded = torch.empty_like(kv)
        hit = store.get(prompt, as_blocks(loaded))
        print("get     ", hit)
        assert torch.equal(loaded, kv)
        print(f"computing {len(prompt) - hit.num_tokens} of {len(prompt)} tokens is left")
