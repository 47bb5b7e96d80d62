"""All modes in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from kvtier.errors import ConfigError
from kvtier.oracle.models import ModelSource
from kvtier.oracle.modes import MODES, Bench
from kvtier.oracle.trial import Row, Settings, Trial


def consult(
    source: ModelSource,
    settings: Settings,
    directory: Path,
    *,
    modes: Iterable[str] = tuple(MODES),
    say: Callable[[str], object] = print,
) -> list[Row]:
    """Ask a model the same prompts through every mode, and compare bit for bit.

    Args:
        source: The model.
        settings: What is asked.
        directory: Empty; stores are made in it, and are left there.
        modes: Which of ``MODES``.
        say: Told what is being done.

    Returns:
        A row for each mode. The store is in order if every verdict is ``"exact"``.

    Raises:
        ConfigError: The model cannot be loaded, or takes no prompts of that length.
    """
    say(f"loading {source.label}")
    model = source.load()
    longest = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if longest is not None and settings.tokens + settings.new_tokens > longest:
        raise ConfigError(f"the model takes {longest} tokens, not {settings.tokens} and {settings.new_tokens} new ones")
    bench = Bench(source, model, settings, directory)
    rows = []
    for mode in modes:
        say(f"{mode}: {MODES[mode].__doc__}")
        trial = Trial(model, bench.reference, settings)
        rows.append(trial.row(mode, MODES[mode](bench, trial)))
    return rows
