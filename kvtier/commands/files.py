"""Files that a command makes: whole or not at all."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvtier.errors import ConfigError


def new_file(text: str) -> Path:
    """A file's place from the command line, as far as can be said before there is anything to write."""
    path = Path(text)
    try:
        possible = bool(text) and not path.is_dir() and path.absolute().parent.is_dir()
    except ValueError:  # a null byte
        possible = False
    if not possible:
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in a directory that exists")
    return path


@contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """A place to write to, which takes the file's name once all went well and is removed otherwise.

    Raises:
        ConfigError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield beside
        beside.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        beside.unlink(missing_ok=True)
