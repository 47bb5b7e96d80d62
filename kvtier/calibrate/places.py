"""Where profiles are kept, and what else is made once and used again."""

from __future__ import annotations

import os
import re
from pathlib import Path


def cache_dir() -> Path:
    """Where kvtier keeps what it measured and fetched; it may not exist yet.

    ``$KVTIER_CACHE``, or ``$XDG_CACHE_HOME/kvtier``, or ``~/.cache/kvtier``.
    """
    if own := os.environ.get("KVTIER_CACHE"):
        return Path(own)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "kvtier"
    return Path.home() / ".cache" / "kvtier"


def profile_name(model: str) -> str:
    """The file name of a model's profile if nobody says another.

    Example:
        >>> profile_name("random llama, seed 0")
        'random-llama-seed-0.json'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model) + ".json"
