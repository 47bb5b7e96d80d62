"""Bytes, parameters and FLOP from configs: against published figures, and against real tensors."""

import json

import pytest

from kvtier.econ.models import (
    KV_DTYPES,
    load_config,
    load_model,
    model_from_config,
    model_names,
    read_model,
)
from kvtier.errors import ConfigError

SOURCE = {"name": "some model", "source": "a test", "date": "2026-11"}

#: Published: parameters and active ones in 1e9, bytes per token in bfloat16, megabytes of windows.
PUBLISHED = {
    "smollm2-135m": (0.135, 0.135, 23_040, 0),
    "smollm2-360m": (0.362, 0.362, 40_960, 0),
    "smollm2-1.7b": (1.71, 1.71, 196_608, 0),
    "qwen2.5-0.5b": (0.494, 0.494, 12_288, 0),
    "qwen3-0.6b": (0.596, 0.596, 114_688, 0),
    "llama-3.2-1b": (1.24, 1.24, 32_768, 0),
    "llama-3.2-3b": (3.21, 3.21, 114_688, 0),
    "llama-2-7b": (6.74, 6.74, 524_288, 0),
    "mistral-7b-v0.3": (7.25, 7.25, 131_072, 0),
    "mixtral-8x7b": (46.7, 12.9, 131_072, 0),
    "llama-3.1-8b": (8.03, 8.03, 131_072, 0),
    "qwen2.5-7b": (7.62, 7.62, 57_344, 0),
    "qwen3-8b": (8.19, 8.19, 147_456, 0),
    "phi-4": (14.7, 14.7, 204_800, 0),
    "mistral-small-3": (23.6, 23.6, 163_840, 0),
    "qwen3-30b-a3b": (30.5, 3.3, 98_304, 0),
    "qwen3-32b": (32.8, 32.8, 262_144, 0),
    "llama-3.1-70b": (70.6, 70.6, 327_680, 0),
    "qwen2.5-72b": (72.7, 72.7, 327_680, 0),
    "mistral-large-2": (123, 123, 360_448, 0),
    "qwen3-235b-a22b": (235, 22, 192_512, 0),
    "glm-4.5": (355, 32, 376_832, 0),
    "llama-3.1-405b": (406, 406, 516_096, 0),
    "gpt-oss-20b": (20.9, 3.6, 24_576, 3.1),
    "gpt-oss-120b": (117, 5.1, 36_864, 4.7),
    "gemma-3-1b": (1.0, 1.0, 4_096, 11.5),
    "gemma-3-4b": (3.88, 3.88, 20_480, 122),
    "gemma-3-12b": (11.8, 11.8, 65_536, 336),
    "gemma-3-27b": (27.0, 27.0, 81_920, 436),
    "deepseek-v3": (671, 37, 70_272, 0),
    "kimi-k2": (1026, 32, 70_272, 0),
}

#: Makers that leave the embedding table out of the active parameters they publish, with its size in 1e9.
WITHOUT_TABLE = {
    "gpt-oss-20b": 201_088 * 2880 / 1e9,
    "gpt-oss-120b": 201_088 * 2880 / 1e9,
    "glm-4.5": 151_552 * 5120 / 1e9,
}


def test_every_model_that_comes_along_is_checked():
    assert set(model_names()) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_bytes_per_token_are_those_published(name):
    _, _, per_token, window_mb = PUBLISHED[name]

    assert load_model(name).bytes_per_token() == per_token
    assert load_model(name).window_bytes() / 1e6 == pytest.approx(window_mb, rel=0.02)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name):
    total, active, _, _ = PUBLISHED[name]
    model = load_model(name)

    assert model.total_params / 1e9 == pytest.approx(total, rel=0.01)
    assert model.active_params / 1e9 - WITHOUT_TABLE.get(name, 0) == pytest.approx(active, rel=0.03)


@pytest.mark.parametrize("dtype", KV_DTYPES)
def test_a_dtype_scales_the_bytes(dtype):
    model = load_model("gpt-oss-20b")

    assert model.bytes_per_token(dtype) == 24_576 * KV_DTYPES[dtype] / 2
    assert model.window_bytes(dtype) == 12 * 128 * 2 * 8 * 64 * KV_DTYPES[dtype]


def test_windows_are_a_constant_per_sequence():
    model = load_model("gemma-3-1b")
    of_a_window = 22 * 2 * 256 * 2

    assert model.window_tokens == 512
    assert model.prefix_bytes(100) == 100 * (4096 + of_a_window)
    assert model.prefix_bytes(10_512) - model.prefix_bytes(512) == 10_000 * 4096
    assert model.prefix_bytes(512) == 512 * 4096 + model.window_bytes()


# FLOP, against a sum over tokens


def summed_flops(model, start, stop):
    def pairs(t, window):
        return t + 0.5 if window is None else min(t + 0.5, window)

    attention = (
        g.num_layers * g.flop_per_pair * pairs(t, g.window_tokens) for g in model.groups for t in range(start, stop)
    )
    return 2 * model.active_params * (stop - start) + sum(attention)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-3-1b", "deepseek-v3", "mixtral-8x7b"])
@pytest.mark.parametrize(("start", "stop"), [(0, 700), (0, 100), (100, 130), (600, 2000), (50, 900), (7, 7)])
def test_flops_are_the_sum_over_tokens(name, start, stop):
    model = load_model(name)

    assert model.prefill_flops(start, stop) == pytest.approx(summed_flops(model, start, stop), rel=1e-9)


def test_attention_flops_by_hand():
    assert {(g.num_layers, g.flop_per_pair) for g in load_model("llama-3.1-8b").groups} == {(32, 4 * 32 * 128)}
    assert {(g.num_layers, g.flop_per_pair) for g in load_model("deepseek-v3").groups} == {(61, 2 * 128 * (192 + 128))}


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (6, 5)])
def test_a_span_that_is_none_is_refused(start, stop):
    with pytest.raises(ConfigError, match="expected 0 <= start <= stop"):
        load_model("llama-3.1-8b").prefill_flops(start, stop)


def test_flops_of_a_rest_and_of_its_prefix_make_the_whole():
    model = load_model("gpt-oss-120b")

    assert model.prefill_flops(0, 300) + model.prefill_flops(300, 999) == pytest.approx(model.prefill_flops(0, 999))


def test_weights_as_published_are_smaller_where_they_are_quantised():
    assert load_model("llama-3.1-8b").weight_bytes == 2 * load_model("llama-3.1-8b").total_params
    assert load_model("deepseek-v3").weight_bytes == load_model("deepseek-v3").total_params
    assert load_model("gpt-oss-20b").weight_bytes == pytest.approx(0.53125 * 20.9e9, rel=0.01)


# Real tensors

SMALL = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "tie_word_embeddings": False,
}
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
MLA = {
    "num_key_value_heads": 4,
    "head_dim": None,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    **MOE,
}
GLM = {"n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 2, "n_group": 1, "topk_group": 1, **MOE}
REAL = {
    "llama, grouped queries": {"model_type": "llama"},
    "llama, every head its own": {"model_type": "llama", "num_key_value_heads": 4},
    "llama, tied": {"model_type": "llama", "tie_word_embeddings": True},
    "llama, biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral, windows": {"model_type": "mistral", "sliding_window": 16},
    "qwen2": {"model_type": "qwen2", "sliding_window": 16, "use_sliding_window": False, "head_dim": None},
    "qwen2, windows": {
        "model_type": "qwen2",
        "sliding_window": 16,
        "use_sliding_window": True,
        "max_window_layers": 1,
        "head_dim": None,
    },
    "qwen3": {"model_type": "qwen3"},
    "qwen3 mixture": {
        "model_type": "qwen3_moe",
        "num_experts": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        **MOE,
    },
    "qwen3 mixture, some dense": {
        "model_type": "qwen3_moe",
        "num_experts": 8,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [3],
        **MOE,
    },
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "phi3": {"model_type": "phi3", "head_dim": None, "pad_token_id": 0, "sliding_window": None},
    "gemma2": {"model_type": "gemma2", "sliding_window": 16, "tie_word_embeddings": True},
    "gemma3": {
        "model_type": "gemma3_text",
        "sliding_window": 16,
        "sliding_window_pattern": 3,
        "tie_word_embeddings": True,
    },
    "gemma3, typed": {
        "model_type": "gemma3_text",
        "sliding_window": 16,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
    },
    "gpt-oss": {
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 16,
        "attention_bias": True,
    },
    "glm4 mixture": {"model_type": "glm4_moe", "attention_bias": True, "use_qk_norm": True, **GLM},
    "glm4 mixture, no norms": {"model_type": "glm4_moe", "attention_bias": False, "use_qk_norm": False, **GLM},
    "deepseek, latent": {"model_type": "deepseek_v3", **MLA},
    "deepseek, biases, whole queries": {
        "model_type": "deepseek_v3",
        **MLA,
        "attention_bias": True,
        "q_lora_rank": None,
    },
}


@pytest.fixture(scope="module")
def real():
    """Makes a tiny model with random weights from the same fields that kvtier gets."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    made = {}

    def make(kind):
        if kind not in made:
            config = {name: value for name, value in (SMALL | REAL[kind]).items() if value is not None}
            if "sliding_window" in REAL[kind]:
                config["sliding_window"] = REAL[kind]["sliding_window"]
            if "q_lora_rank" in REAL[kind]:
                config["q_lora_rank"] = REAL[kind]["q_lora_rank"]
            name = config.pop("model_type")
            settings = transformers.AutoConfig.for_model(name, **config, max_position_embeddings=256)
            torch.manual_seed(0)
            made[kind] = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.float32).eval()
        return made[kind]

    return make


def counted(kind):
    config = {name: value for name, value in (SMALL | REAL[kind]).items() if value is not None}
    return model_from_config(config, **SOURCE)


def cached_bytes(model, tokens):
    import torch

    with torch.no_grad():
        cache = model(torch.arange(tokens)[None] % 100, use_cache=True).past_key_values
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


@pytest.mark.parametrize("kind", REAL)
def test_parameters_are_those_of_the_real_model(real, kind):
    model = real(kind)

    assert counted(kind).total_params == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", [kind for kind, config in REAL.items() if "num_experts_per_tok" in config])
def test_active_parameters_leave_out_the_experts_that_were_not_chosen(real, kind):
    experts = [p for name, p in real(kind).named_parameters() if ".experts." in name]
    total = next(
        REAL[kind][name] for name in ("num_experts", "num_local_experts", "n_routed_experts") if name in REAL[kind]
    )
    idle = sum(p.numel() for p in experts) * (total - 2) // total

    assert idle > 0
    assert counted(kind).active_params == counted(kind).total_params - idle


@pytest.mark.parametrize("kind", REAL)
def test_bytes_per_token_are_those_of_the_real_cache(real, kind):
    model = real(kind)

    assert cached_bytes(model, 96) - cached_bytes(model, 64) == 32 * counted(kind).bytes_per_token("float32")


@pytest.mark.parametrize("kind", REAL)
def test_bytes_of_a_prefix_are_those_of_the_real_cache(real, kind):
    """The real cache keeps one token less than the window, for the query brings its own."""
    found, model = cached_bytes(real(kind), 64), counted(kind)
    one_less = sum(g.num_layers * g.numbers_per_token * 4 for g in model.groups if g.window_tokens)

    assert found == model.prefix_bytes(64, "float32") - one_less
    assert (one_less > 0) == (model.window_tokens > 0)


@pytest.mark.parametrize("kind", [kind for kind, config in REAL.items() if config.get("sliding_window")])
def test_the_expected_layers_have_windows(real, kind):
    types = real(kind).config.layer_types if "mistral" not in kind else ["sliding_attention"] * 4
    windowed = sum(g.num_layers for g in counted(kind).groups if g.window_tokens)

    assert windowed == types.count("sliding_attention")


@pytest.mark.parametrize("kind", REAL)
def test_a_config_counts_the_same_as_transformers_writes_it(real, kind):
    assert model_from_config(json.loads(real(kind).config.to_json_string()), **SOURCE) == counted(kind)


# Bad input

LLAMA = {**SMALL, "model_type": "llama"}
DEEPSEEK = {**SMALL, "model_type": "deepseek_v3", **MLA}


@pytest.mark.parametrize(
    "field", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "intermediate_size"]
)
def test_a_field_that_is_missing_is_named(field):
    config = {name: value for name, value in LLAMA.items() if name != field}

    with pytest.raises(ConfigError, match=f"some model: the config has no {field}"):
        model_from_config(config, **SOURCE)


def test_all_fields_that_are_missing_are_named_at_once():
    with pytest.raises(ConfigError, match="no hidden_size, vocab_size"):
        model_from_config({"model_type": "llama", "num_hidden_layers": 2}, **SOURCE)


@pytest.mark.parametrize("field", ["qk_rope_head_dim", "v_head_dim", "num_experts_per_tok"])
def test_a_field_of_latent_attention_that_is_missing_is_named(field):
    config = {name: value for name, value in DEEPSEEK.items() if name != field}

    with pytest.raises(ConfigError, match=f"no {field}"):
        model_from_config(config, **SOURCE)


@pytest.mark.parametrize("value", [0, -1, 1.5, "32", True])
def test_a_count_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="hidden_size must be a whole number of at least 1"):
        model_from_config({**LLAMA, "hidden_size": value}, **SOURCE)


@pytest.mark.parametrize("field", ["q_lora_rank", "n_shared_experts", "first_k_dense_replace"])
@pytest.mark.parametrize("value", [-1, "2", 0.5])
def test_a_count_that_may_be_absent_must_still_be_one(field, value):
    with pytest.raises(ConfigError, match=f"{field} must be a whole number of at least 0"):
        model_from_config({**DEEPSEEK, field: value}, **SOURCE)


def test_a_family_that_is_unknown_is_refused_with_near_ones():
    with pytest.raises(ConfigError, match=r"unknown model_type 'qwen3_mo'; did you mean .*qwen3_moe"):
        model_from_config({**LLAMA, "model_type": "qwen3_mo"}, **SOURCE)


def test_a_config_without_a_family_is_refused():
    with pytest.raises(ConfigError, match="no model_type"):
        model_from_config({**LLAMA, "model_type": None}, **SOURCE)


def test_layers_without_keys_and_values_are_refused_by_name():
    types = ["full_attention", "linear_attention", "mamba", "full_attention"]

    with pytest.raises(ConfigError, match="linear_attention, mamba keep no keys and values"):
        model_from_config({**LLAMA, "layer_types": types}, **SOURCE)


def test_layer_types_must_be_as_many_as_layers():
    with pytest.raises(ConfigError, match="has 1 entries, num_hidden_layers says 4"):
        model_from_config({**LLAMA, "layer_types": ["full_attention"]}, **SOURCE)


def test_windowed_layers_need_a_window():
    with pytest.raises(ConfigError, match="no sliding_window"):
        model_from_config({**LLAMA, "layer_types": ["sliding_attention"] * 4}, **SOURCE)


@pytest.mark.parametrize(("kind", "windows"), [("qwen2", 0), ("qwen3", 0), ("mistral", 8)])
def test_a_window_that_nobody_switched_on_counts_where_the_family_uses_it(kind, windows):
    assert model_from_config({**LLAMA, "model_type": kind, "sliding_window": 8}, **SOURCE).window_tokens == windows


def test_the_text_part_of_a_multimodal_config_counts():
    text = {name: value for name, value in SMALL.items() if name != "tie_word_embeddings"} | {"sliding_window": 8}
    both = model_from_config({"model_type": "gemma3", "text_config": text}, **SOURCE)

    assert both == model_from_config({"model_type": "gemma3_text", **text}, **SOURCE)


def test_an_unknown_model_is_refused_with_near_ones():
    with pytest.raises(ConfigError, match=r"unknown model 'lama-3.1-8b'; did you mean llama-3.1-8b"):
        load_model("lama-3.1-8b")


def test_a_model_goes_by_its_other_names_in_any_case():
    assert load_model("DeepSeek-R1") is load_model("deepseek-v3")


@pytest.mark.parametrize("field", ["name", "source", "date", "config"])
def test_a_geometry_without_a_source_is_refused(field):
    raw = {"name": "x", "source": "y", "date": "2026", "config": LLAMA, field: ""}

    with pytest.raises(ConfigError, match=f"has no {field}"):
        read_model(raw, "x.json")


def test_a_config_file_is_read_from_itself_or_its_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))

    one, other = load_config(tmp_path / "config.json"), load_config(tmp_path)

    assert one == other
    assert one.name == tmp_path.name
    assert one.bytes_per_token("float32") == 4 * 2 * 2 * 16 * 4


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_config_file_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ConfigError, match=r"config\.json"):
        load_config(path)


def test_an_unknown_dtype_is_refused_with_near_ones():
    with pytest.raises(ConfigError, match="unknown KV dtype 'bfloat1'; did you mean bfloat16"):
        load_model("llama-3.1-8b").bytes_per_token("bfloat1")


@pytest.mark.parametrize(("name", "kflop"), [("smollm2-135m", 12), ("llama-3.1-8b", 123), ("deepseek-v3", 1053)])
def test_flop_per_byte_is_small_where_the_cache_is_hard_to_beat(name, kflop):
    assert load_model(name).flop_per_kv_byte() / 1e3 == pytest.approx(kflop, rel=0.03)
