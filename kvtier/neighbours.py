"""Other namespaces whose blocks lie in the same tiers, to say why a prompt is a miss.

The name of a prompt's first block depends on the namespace. So whether another one holds the prompt is
one more look at the index, and only where nothing is held for this one.

A namespace with a salt is left out: whether another tenant has seen a prompt is what the salt hides, from
answers as well as from clocks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from kvtier.answers import Hit
from kvtier.core import Core
from kvtier.errors import TierError
from kvtier.hashing import BlockHash, Chain, Label, Namespace, name_block
from kvtier.tiers.base import SharedTier, Tier

log = logging.getLogger("kvtier")


class Neighbour(NamedTuple):
    """A namespace other than the store's."""

    root: BlockHash
    difference: str
    """Which settings differ, for a person."""

    def name_of_first(self, chain: Chain) -> BlockHash:
        """The name that a prompt's first block has there."""
        return name_block(Label(self.root, 0, chain.labels[0].tokens if len(chain) else b""))


def explained(hit: Hit, chain: Chain, core: Core, neighbours: Iterable[Neighbour]) -> Hit:
    """Say so if a prompt is not held here and is by another model, adapter or setting."""
    if hit.num_blocks or hit.stopped_by != "not_held":
        return hit
    for neighbour in neighbours:
        with core.lock:
            held = core.placement.match([neighbour.name_of_first(chain)]).tiers
        if held:
            return replace(hit, stopped_by="other_namespace", detail=neighbour.difference)
    return hit


def neighbours_of(tiers: Iterable[Tier], namespace: Namespace) -> list[Neighbour]:
    """Introduce a namespace to the tiers that keep records of them; returns the others there that have no salt."""
    found: dict[BlockHash, Neighbour] = {}
    for tier in tiers:
        if not isinstance(tier, SharedTier):
            continue
        try:
            others = tier.introduce(namespace)
        except TierError as exc:
            log.warning("%s: the namespace is not noted: %s", tier.name, exc.reason)
            continue
        for root, record in others:
            if not record.get("salted", True):
                found[root] = Neighbour(root, difference(record, namespace.record()))
    return list(found.values())


def difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """The settings in which two namespaces differ.

    Example:
        >>> difference({"weights": "aa", "layers": 4}, {"weights": "bb", "layers": 4})
        "weights: held for 'aa', asked for 'bb'"
    """
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    return "; ".join(f"{name}: held for {theirs.get(name)!r}, asked for {ours.get(name)!r}" for name in names)
