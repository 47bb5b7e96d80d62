"""What an environment says of itself, and whether that is what was expected.

    meta        "format" -> {"format": 3, "block_bytes": ..., "slot_bytes": ..., "slab_slots": ...}
    kvtier.lock                      the same, written whenever the directory is opened

Two witnesses: where the marker says what is expected and the environment does not, the environment is
damaged. Where both say something else, it is another's.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from kvtier.errors import ConfigError, KVTierError, SpecMismatchError
from kvtier.format import FORMAT_VERSION
from kvtier.tiers.journal import BOOKS
from kvtier.tiers.layout import Layout

if TYPE_CHECKING:
    from kvtier.tiers.environment import Environment

DATABASES = ("index", "slabs", "places", "meta", "namespaces", "journal", "quarantine")


class UnfitError(Exception):
    """The environment is not what was expected; has the error to raise if it is not damaged."""

    def __init__(self, error: KVTierError) -> None:
        super().__init__(str(error))
        self.error = error


class About:
    """What is expected of an environment.

    Args:
        env: Which one.
        block_bytes: Payload bytes of one block.
        layout: How a new data file is cut up; an old one keeps its number of slots in a slab.
    """

    def __init__(self, env: Environment, block_bytes: int, layout: Layout) -> None:
        self.layout = layout
        self._name = env.name
        self._path = env.directory.path
        self._capacity_blocks = env.capacity_blocks
        self._sizes = {"format": FORMAT_VERSION, "block_bytes": block_bytes, "slot_bytes": layout.slot_bytes}

    def marker(self) -> dict[str, int]:
        """What goes into the marker."""
        return self._sizes

    def is_in(self, marker: dict[str, Any]) -> bool:
        """Whether a marker says what is expected."""
        return all(marker.get(name) == value for name, value in self._sizes.items())

    def agree(self, env: Any) -> tuple[Layout, dict[str, Any]]:
        """How the data file is cut up, and the databases by name; a new environment is made first.

        Raises:
            UnfitError: It is not kvtier's, of other blocks, or incomplete.
            ConfigError: It is of another release.
        """
        if env.stat()["entries"] == 0:
            self._create(env)
        about: Any = None
        with suppress(lmdb.Error, ValueError, RecursionError):
            meta = env.open_db(b"meta", create=False)
            with env.begin() as txn:
                about = json.loads(txn.get(b"format", db=meta, default=b"null"))
        layout = self._layout_of(about)
        try:
            databases = {name: env.open_db(name.encode(), create=False) for name in DATABASES}
            with env.begin() as txn:
                if len(txn.get(b"books", db=databases["meta"], default=b"")) != BOOKS.size:
                    raise lmdb.NotFoundError("books")
        except lmdb.Error as exc:
            error = ConfigError(f"{self._name}: {self._path} is incomplete: {exc}; move it away to start afresh")
            raise UnfitError(error) from exc
        return layout, databases

    def _create(self, env: Any) -> None:
        """A new environment becomes kvtier's in one transaction, so a kill leaves it empty or whole."""
        about = self._sizes | {"slab_slots": self.layout.slab_slots}
        with env.begin(write=True) as txn:
            databases = {name: env.open_db(name.encode(), txn=txn) for name in DATABASES}
            txn.put(b"format", json.dumps(about).encode(), db=databases["meta"])
            txn.put(b"books", BOOKS.pack(0, 0, self._capacity_blocks), db=databases["meta"])

    def _layout_of(self, about: Any) -> Layout:
        if not isinstance(about, dict) or "format" not in about:
            raise UnfitError(
                ConfigError(
                    f"{self._name}: {self._path} holds an LMDB environment that is not kvtier's; "
                    "choose another directory"
                )
            )
        if about["format"] != FORMAT_VERSION:  # refused whatever the marker says: it may be older than an upgrade
            raise of_another_release(self._name, self._path, about["format"])
        sizes = [about.get(name) for name in ("block_bytes", *Layout._fields)]
        if not all(isinstance(size, int) and 0 < size < 2**32 for size in sizes):
            raise UnfitError(
                ConfigError(f"{self._name}: {self._path} says of itself {about}; choose another directory")
            )
        found, wanted = sizes[:2], [self._sizes["block_bytes"], self._sizes["slot_bytes"]]
        if found != wanted:
            raise UnfitError(
                SpecMismatchError(
                    f"{self._name}: {self._path} holds blocks of {found[0]} bytes in slots of {found[1]}, "
                    f"expected {wanted[0]} in {wanted[1]}; "
                    "another model, dtype or block_tokens wrote it: use one directory for each"
                )
            )
        return Layout(about["slot_bytes"], about["slab_slots"])


def of_another_release(name: str, path: Path, found: object) -> ConfigError:
    """The error for a directory of another format."""
    return ConfigError(
        f"{name}: {path} has format {found}, this kvtier reads {FORMAT_VERSION}; "
        "use the release that wrote it, or another directory"
    )
