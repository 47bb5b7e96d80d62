"""Models and prompts that cannot be served are refused by name, with the reason."""

import copy

import pytest
import torch
from store_helpers import ids_of, make
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from kvtier.errors import ConfigError, SpecMismatchError, TokenError, UnsupportedModelError
from kvtier.integrations.transformers import CachedLM, fingerprint, kv_spec, namespace_of


def mamba(_):
    config = AutoConfig.for_model("mamba", hidden_size=32, num_hidden_layers=2, vocab_size=64, state_size=4)
    return AutoModelForCausalLM.from_config(config).eval()


def t5(_):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes)).eval()


def dynamic_rope(tiny):
    return tiny(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})


UNSUPPORTED = {
    "mamba": (mamba, "Mamba", "not plain keys and values|DynamicCache"),
    "sliding-window": (lambda tiny: tiny("mistral", sliding_window=8), "Mistral", "Sliding"),
    "gemma3": (lambda tiny: tiny("gemma3_text", sliding_window=8), "Gemma3", "Sliding"),
    "encoder-decoder": (t5, "T5", "encoder-decoder"),
    "dynamic-rope": (dynamic_rope, "Llama", r"rotary embedding \(dynamic\)"),
}


@pytest.mark.parametrize(("build", "name", "reason"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_model_whose_cache_cannot_be_restored_is_refused(tiny, build, name, reason):
    with pytest.raises(UnsupportedModelError, match=f"{name}.* cannot be served exactly: .*({reason})"):
        kv_spec(build(tiny))


def test_a_refused_model_leaves_no_directory(tiny, tmp_path):
    with pytest.raises(UnsupportedModelError):
        CachedLM.open(tiny("mistral", sliding_window=8), tmp_path / "cache")

    assert not (tmp_path / "cache").exists()


def test_a_model_in_training_mode_is_refused(tiny):
    model = copy.deepcopy(tiny()).train()

    with pytest.raises(ConfigError, match=r"training mode; call model\.eval\(\)"):
        kv_spec(model)


def test_a_model_without_weights_is_refused():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", num_hidden_layers=1)).eval()

    with pytest.raises(ConfigError, match="meta device"):
        fingerprint(model)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_models_of_plain_attention_are_served(tiny, kind):
    window = {"sliding_window": None} if kind == "mistral" else {}

    assert kv_spec(tiny(kind, **window)).layers == 2


def test_a_store_of_another_geometry_is_refused(tiny):
    with make(host=2) as store, pytest.raises(SpecMismatchError, match=r"namespace has spec .* the model needs"):
        CachedLM(tiny(), store)


@pytest.mark.parametrize("chunk", [0, -16, 8, 17])
def test_chunks_that_are_not_whole_blocks_are_refused(tiny, chunk):
    with pytest.raises(ConfigError, match=rf"multiple of block_tokens \(16\), got {chunk}"):
        namespace_of(tiny(), block_tokens=16, chunk_tokens=chunk)


@pytest.mark.parametrize("chunk", [0, -1])
def test_the_control_refuses_empty_chunks(tiny, chunk):
    with pytest.raises(ConfigError, match=f"got {chunk}"):
        CachedLM(tiny(), None, chunk_tokens=chunk)


@pytest.mark.parametrize(
    "option",
    [{"prompt_lookup_num_tokens": 3}, {"return_dict_in_generate": True}],
    ids=lambda option: next(iter(option)),
)
def test_generate_refuses_options_that_cannot_work(tiny, option):
    with pytest.raises(ConfigError, match=f"generate does not take {next(iter(option))}"):
        CachedLM(tiny(), None).generate([1, 2, 3], **option)


def test_generate_refuses_a_second_model_to_assist(tiny):
    with pytest.raises(ConfigError, match=r"assistant_model: .* wrong tokens"):
        CachedLM(tiny(), None).generate([1, 2, 3], assistant_model=tiny(seed=1))


BAD_PROMPTS = {
    "empty": ([], "prompt is empty"),
    "outside-the-vocabulary": ([1, 2, 128], "128 at position 2 is outside the vocabulary of 128"),
    "negative": ([1, -1], "-1 at position 1"),
    "floats": ([1.0, 2.0], "whole numbers"),
}


@pytest.mark.parametrize(("prompt", "what"), BAD_PROMPTS.values(), ids=BAD_PROMPTS)
def test_what_is_not_a_prompt_is_refused(tiny, open_lm, prompt, what):
    lm = open_lm(tiny(), host=4)

    with pytest.raises(TokenError, match=what):
        lm.prefill(prompt)
    with pytest.raises(TokenError, match=what):
        lm.generate(prompt)


def test_one_bad_prompt_refuses_its_batch_before_anything_is_stored(tiny, open_lm):
    lm = open_lm(tiny(), host=4)

    with pytest.raises(TokenError, match="vocabulary"):
        lm.generate([ids_of(1, 20), [500]])

    assert lm.store.stats()["counters"]["puts"] == 0


@pytest.mark.parametrize("kind", [tuple, torch.tensor], ids=["tuple", "tensor"])
def test_any_flat_sequence_is_one_prompt(tiny, open_lm, kind):
    lm = open_lm(tiny(), host=4)
    ids = ids_of(1, 20)

    assert lm.generate(kind(ids), max_new_tokens=2) == lm.generate(ids, max_new_tokens=2)
