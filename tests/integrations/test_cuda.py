"""A model on a GPU over every tier: what comes back is what was computed, whatever runs at the same time."""

import threading

import pytest
import torch
from store_helpers import ids_of, raw_damage

from kvtier.integrations.transformers import CachedLM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BLOCK_TOKENS = 16
BLOCKS = 24
PROMPT = ids_of(1, BLOCKS * BLOCK_TOKENS + 5)
DTYPES = ["float32", "bfloat16"]
LAYOUTS = {
    "device": {"device": 2 * BLOCKS},
    "host": {"host": 2 * BLOCKS},
    "disk": {"disk": 2 * BLOCKS},
    "mixed": {"device": BLOCKS // 3, "host": BLOCKS // 3, "disk": 4 * BLOCKS},
}


@pytest.fixture(scope="module")
def on_gpu(tiny):
    """Makes models of eight layers on the GPU."""
    made = {}

    def make(dtype="float32"):
        if dtype not in made:
            made[dtype] = tiny(dtype=dtype, num_hidden_layers=8).to("cuda")
        return made[dtype]

    return make


def fill(lm, prompt=PROMPT):
    """Store a prompt; what is in the model's cache, by layer."""
    done = lm.prefill(prompt[: BLOCKS * BLOCK_TOKENS])
    lm.store.flush()
    return contents(done)


def contents(done, count=BLOCKS * BLOCK_TOKENS):
    layers = done.past_key_values.layers
    return [(each.keys[..., :count, :].clone(), each.values[..., :count, :].clone()) for each in layers]


def same(ours, theirs):
    return all(torch.equal(a, b) for pairs in zip(ours, theirs, strict=True) for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("layerwise", ["never", "always"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
def test_a_prompt_comes_back_bit_for_bit(on_gpu, open_lm, tmp_path, sizes, dtype, layerwise):
    lm = open_lm(on_gpu(dtype), tmp_path, layerwise=layerwise, **sizes)
    computed = fill(lm)

    for _ in range(3):  # blocks move up in between
        done = lm.prefill(PROMPT)
        assert done.num_reused == BLOCKS * BLOCK_TOKENS
        assert same(contents(done), computed)
        lm.store.flush()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
def test_both_ways_of_loading_give_the_same_logits(on_gpu, open_lm, tmp_path, sizes, dtype):
    lm, logits = open_lm(on_gpu(dtype), tmp_path, **sizes), []
    fill(lm)

    for lm.layerwise in ("never", "always", "auto"):
        logits.append(lm.prefill(PROMPT).logits)

    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def test_a_prompt_comes_back_after_a_restart(on_gpu, open_lm, tmp_path):
    lm = open_lm(on_gpu(), tmp_path, device=8, host=8, disk=4 * BLOCKS)
    computed = fill(lm)
    lm.close()

    lm = open_lm(on_gpu(), tmp_path, device=8, host=8, disk=4 * BLOCKS)
    done = lm.prefill(PROMPT)

    assert done.hit.tiers == ("disk",) * BLOCKS
    assert same(contents(done), computed)


def test_the_store_of_a_model_is_on_its_device(on_gpu, open_lm):
    device, host = open_lm(on_gpu(), device=4, host=4).store.tiers

    assert device.device.type == "cuda"
    assert host._pool.is_pinned()


@pytest.mark.parametrize("layerwise", ["never", "always"])
def test_damage_is_computed_again(on_gpu, open_lm, tmp_path, layerwise):
    lm = open_lm(on_gpu(), tmp_path, disk=2 * BLOCKS, layerwise=layerwise)
    whole = CachedLM(lm.model, None).prefill(PROMPT)
    fill(lm)
    raw_damage(lm.store.tiers[0], lm.store.name(PROMPT).keys[7])

    done = lm.prefill(PROMPT)

    assert (done.hit.num_blocks, done.hit.stopped_by) == (7, "damaged")
    assert torch.allclose(done.logits, whole.logits, atol=1e-4)


@pytest.mark.parametrize("tier", ["device", "host", "disk"])
def test_loading_from_both_ends_gives_the_same_tokens(on_gpu, open_lm, tmp_path, tier):
    expected = CachedLM(on_gpu(), None, chunk_tokens=64).generate(PROMPT, max_new_tokens=6)
    lm = open_lm(on_gpu(), tmp_path, chunk_tokens=64, reuse="both", **{tier: 2 * BLOCKS})
    fill(lm)

    assert [lm.generate(PROMPT, max_new_tokens=6) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize("layerwise", ["never", "always"])
@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
def test_threads_on_streams_of_their_own_get_their_own_prompts(on_gpu, open_lm, tmp_path, sizes, layerwise):
    """Four prompts through tiers that hold two: blocks sink and rise while others are read."""
    lm = open_lm(on_gpu(), tmp_path, layerwise=layerwise, **sizes)
    prompts = [ids_of(seed, len(PROMPT)) for seed in range(2, 6)]
    expected = [contents(CachedLM(lm.model, None).prefill(prompt[: BLOCKS * BLOCK_TOKENS])) for prompt in prompts]
    wrong = []

    def work(number):
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(8):
                done = lm.prefill(prompts[number][: BLOCKS * BLOCK_TOKENS])
                for (keys, values), (their_keys, their_values) in zip(contents(done), expected[number], strict=True):
                    near = torch.allclose(keys, their_keys, atol=1e-4) and torch.allclose(
                        values, their_values, atol=1e-4
                    )
                    wrong.extend([] if near else [number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)

    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_a_read_does_not_overtake_what_was_queued_before_it(on_gpu, open_lm):
    """A buffer is zeroed behind much other work; the read must land after that, not before."""
    lm = open_lm(on_gpu(), device=2 * BLOCKS, host=2 * BLOCKS)
    fill(lm)
    size, keys = lm.store.spec.block_bytes, lm.store.name(PROMPT).keys
    out = torch.ones(len(keys), size, dtype=torch.uint8, device="cuda")
    busy = torch.randn(4096, 4096, device="cuda")
    lm.store.get(PROMPT, list(out))
    expected = out.clone()
    for read in (lambda: lm.store.get(PROMPT, list(out)), lambda: streamed(lm.store, out)):
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(20):
                    busy = busy @ busy / 64
                out.zero_()
                read()
            assert torch.equal(out, expected)
            torch.cuda.synchronize()


def streamed(store, out):
    layers = store.spec.layers
    stream = store.stream(PROMPT, list(out.view(len(out), layers, -1)))
    for layer in range(layers):
        stream.wait(layer)
    stream.result()
