"""What goes where and what leaves: every decision of the store, and no I/O.

``Placement`` answers with orders. A caller asks for a plan, carries its moves out in the
order given, and reports each as committed or aborted:

    plan_write(chain) -> [disk: drop w] [host -> disk: v] [device -> host: u] [new -> device: n]

Room is reserved when the plan is made and each step frees the room that the next one uses, so
a tier that obeys its orders never holds more than its capacity. Nothing here reads a clock,
touches a byte or takes a lock: the live store holds its own lock around each call, and a
simulator calls the same object from a loop.

Three rules make a plan:

* a victim that has a copy in another tier is dropped; otherwise it sinks one tier; only a leaf
  of the forest may lose its last copy, so a held block always has its parent;
* a block on its way down or out is a miss from the moment it is planned; one on its way up
  stays readable where it was until it is readable above, and only then is dropped below;
* leased blocks and blocks in flight are never victims; the chain being written may sink, so that
  a prompt longer than a tier spills into the next, but none of it is dropped to make room for
  the rest; a chain being promoted or copied does neither.

``commit``, ``abort`` and ``forget`` return follow-up drops: blocks that became unreachable in
the meantime. They are orders like any others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

from kvtier.hashing import BlockHash, Chain, Label
from kvtier.index import Lease, Match, Node, PrefixIndex
from kvtier.listing import Listing
from kvtier.resting import Resting
from kvtier.room import Books, Move, Sweep, TierRules

__all__ = ["Move", "Placement", "TierRules"]


class Placement:
    """Decides over an ordered list of tiers, fastest first. Not thread safe."""

    def __init__(self, tiers: Sequence[TierRules]) -> None:
        self.index = PrefixIndex()
        self._rules = list(tiers)
        self._used = [0] * len(self._rules)
        self._books = Books(self._rules, self._used, self.index)

    @property
    def num_tiers(self) -> int:
        """Tiers it decides over."""
        return len(self._rules)

    def used_blocks(self, tier: int) -> int:
        """Places taken in a tier: blocks held, arriving and leaving."""
        return self._used[tier]

    def free_blocks(self, tier: int) -> int:
        """Places of a tier that are not taken."""
        return max(0, self._rules[tier].capacity_blocks - self._used[tier])

    def match(self, keys: Sequence[BlockHash]) -> Match:
        """See ``PrefixIndex.match``."""
        return self.index.match(keys)

    def lease(self, keys: Sequence[BlockHash], owner: str, deadline: float) -> Lease:
        """See ``PrefixIndex.lease``."""
        return self.index.lease(keys, owner, deadline)

    def release(self, lease: Lease) -> None:
        """See ``PrefixIndex.release``."""
        self.index.release(lease)

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """Count one use of each block, in every tier that holds it."""
        for rules in self._rules:
            rules.policy.touch(keys)

    # Plans

    def plan_write(
        self, chain: Chain, dst: int = 0, *, hold: Sequence[BlockHash] = (), demote: bool = True
    ) -> list[Move]:
        """Orders to take up the blocks of a chain that are not held, as far as room can be made.

        The chain may start anywhere in its prompt as long as the parent of its first block is
        held; it ends early at a block whose former self is still on its way out.

        Args:
            chain: Blocks to place.
            dst: The tier that takes new blocks.
            hold: Further names that must not be dropped for it, such as the rest of the prompt.
            demote: Let victims sink. Else room is made by drops alone: copies of what another tier
                holds first, then leaves of the forest. O(blocks in ``dst``).
        """
        new: list[Move] = []
        before = [label.parent for label in chain.labels[:1]]  # of a chain that starts mid-prompt
        with Sweep(self._books, [*before, *chain.keys, *hold], may_sink=True, demote=demote) as sweep:
            for key, label in zip(chain.keys, chain.labels, strict=True):
                node = self.index.get(key)
                if node is None:
                    if not self._parent_alive(label) or not sweep.reserve(dst):
                        break
                    self.index.add(key, label).moves = 1
                    new.append(Move(key, None, dst))
                elif node.dead:
                    break
        return sweep.orders() + new

    def plan_promote(self, keys: Sequence[BlockHash], dst: int = 0) -> list[Move]:
        """Orders to copy the leading run of ``keys`` up to ``dst``, as far as room can be made.

        The commit of such a copy orders the drop below, unless that tier is durable.
        """
        up: list[Move] = []
        with Sweep(self._books, keys) as sweep:
            for key in keys:
                node = self.index.get(key)
                if node is None or not node.tiers:
                    break
                if node.fastest <= dst or node.moves:
                    continue
                src = node.fastest
                if not sweep.reserve(dst):
                    break
                node.moves = 1
                up.append(Move(key, src, dst, keep=True))
        return sweep.orders() + up

    def plan_copy_down(self, keys: Sequence[BlockHash] | None = None) -> list[Move]:
        """Orders to copy blocks that only faster tiers hold to the last one; they also stay above.

        Args:
            keys: Names to copy, parents before children; all that qualify if None.
        """
        last = self.num_tiers - 1
        if keys is None:
            above = [node for node in self.index.alive(besides=last) if node.tiers & ~(1 << last)]
            keys = [node.key for node in sorted(above, key=lambda node: node.depth)]
        down: list[Move] = []
        with Sweep(self._books, keys) as sweep:
            for key in keys:
                node = self.index.get(key)
                if node is None or not node.tiers or node.tiers >> last & 1 or node.moves:
                    continue
                if not sweep.reserve(last):
                    break
                node.moves = 1
                down.append(Move(key, node.fastest, last, keep=True))
        return sweep.orders() + down

    # Reports

    def commit(self, moves: Iterable[Move]) -> list[Move]:
        """Record moves that were carried out; returns follow-up drops."""
        follow: list[Move] = []
        arrived: dict[int, list[Node]] = {}
        for move in moves:
            node = self.index[move.key]
            node.moves -= 1
            if move.src is not None and not move.keep:
                self._leave(node, move.src)
            if move.dst is not None:
                if node.dead:
                    node.doomed |= 1 << move.dst
                else:
                    node.tiers |= 1 << move.dst
                    if move.src is not None and move.src < move.dst and not move.keep:
                        self._rules[move.dst].policy.insert([move.key])  # victims come worst first, not head first
                    else:
                        arrived.setdefault(move.dst, []).append(node)
                    self._drop_below(node, move)
            follow += self._resolve(node)
        for tier, nodes in arrived.items():  # less those that a later move of the batch took along
            self._rules[tier].policy.insert([node.key for node in nodes if node.tiers >> tier & 1])
        return follow

    def abort(self, moves: Iterable[Move]) -> list[Move]:
        """Record moves that failed; returns follow-up drops.

        A new block, or one on its way down, is lost: keeping it would leave the tier above over
        capacity, losing it costs a recompute. The caller has removed it from ``src``. A failed
        promotion or copy leaves the source as it was; if the source is what failed, call
        ``forget`` as well. A failed drop counts as done: the tier enforces its own cap.
        """
        follow: list[Move] = []
        for move in moves:
            node = self.index[move.key]
            node.moves -= 1
            if move.dst is not None:
                self._used[move.dst] -= 1
            if move.src is not None and not move.keep:
                self._leave(node, move.src)
            follow += self._resolve(node)
        return follow

    def forget(self, key: BlockHash, tier: int) -> list[Move]:
        """A tier lost or damaged a block: returns drops for it and for what became unreachable."""
        node = self.index.get(key)
        if node is None or not node.tiers >> tier & 1:
            return []
        self._doom(node, tier)
        return self._resolve(node)

    def restore(self, tier: int, entries: Iterable[tuple[BlockHash, Label]]) -> list[Move]:
        """Take up what a tier already holds, oldest first; returns drops for what cannot be used.

        Unusable: a block whose parent is not held, and what exceeds the tier's capacity. The
        blocks of a ``Listing`` become objects only when they are used, if they are the first.
        """
        if isinstance(entries, Listing) and not self.index.nodes and self.index.resting is None:
            return self._rest(tier, entries)
        listed = list(entries)
        follow: list[Move] = []
        taken: set[BlockHash] = set()
        for key, label in sorted(listed, key=lambda entry: entry[1].depth):
            self._used[tier] += 1
            node = self.index.get(key)
            if node is None and self._parent_alive(label):
                node = self.index.add(key, label)
            if node is None or node.dead:  # an orphan, or one that another tier's restore gave up
                follow += self._turn_away(key, label, tier)
            else:
                node.tiers |= 1 << tier
                taken.add(key)
        self._rules[tier].policy.insert([key for key, _ in reversed(listed) if key in taken])
        return follow + self._shrink(tier, len(listed) - len(taken))

    def check(self) -> None:
        """Raise AssertionError if the books do not balance. O(blocks)."""
        for tier, rules in enumerate(self._rules):
            bit = 1 << tier
            asleep = self.index.num_resting(tier)
            held = asleep + sum(bool((n.tiers | n.doomed) & bit) for n in self.index.nodes.values())
            assert held <= self._used[tier], f"tier {tier}: {held} held, {self._used[tier]} accounted"
            readable = asleep + sum(bool(n.tiers & bit) for n in self.index.nodes.values())
            assert len(rules.policy) == readable, f"tier {tier}: policy holds {len(rules.policy)} of {readable}"
        self.index.check()
        for node in self.index.awake():
            assert node.tiers or node.moves, "a node without a copy or a move"
            assert node.depth == 0 or (node.parent is not None and not node.parent.dead), "an orphan"

    # Internals

    def _rest(self, tier: int, listing: Listing) -> list[Move]:
        """``restore`` of the first tier, without an object for each block."""
        resting = Resting(listing, tier)
        self._used[tier] += len(listing)
        if resting:
            self.index.rest(resting)
            self._rules[tier].policy.insert(resting.roll)
        follow: list[Move] = []
        for row in resting.orphans:
            follow += self._turn_away(listing.name(row), listing.label(row), tier)
        return follow + self._shrink(tier, len(resting.orphans))

    def _turn_away(self, key: BlockHash, label: Label, tier: int) -> list[Move]:
        """Drops for a block that a tier holds and that has no place in the forest."""
        node = self.index.nodes.get(key)
        if node is None:
            node = self.index.nodes[key] = Node(key, label, None)
            node.dead = True
        node.doomed |= 1 << tier
        return self._settle(node)

    def _parent_alive(self, label: Label) -> bool:
        parent = self.index.get(label.parent)
        return label.depth == 0 or (parent is not None and not parent.dead and parent.depth < label.depth)

    def _leave(self, node: Node, tier: int) -> None:
        """A block's bytes are gone from a tier, which stopped serving it when the move was planned."""
        self._used[tier] -= 1
        node.doomed &= ~(1 << tier)

    def _drop_below(self, node: Node, move: Move) -> None:
        """A promoted block leaves the tier it came from, unless it costs a write to bring it back."""
        src = move.src
        if src is None or move.dst is None or move.dst > src or self._rules[src].durable:
            return
        if node.tiers >> src & 1:
            self._doom(node, src)

    def _doom(self, node: Node, tier: int) -> None:
        """Stop serving a block from a tier; its bytes are dropped once nothing is in flight."""
        node.tiers &= ~(1 << tier)
        node.doomed |= 1 << tier
        self._rules[tier].policy.remove([node.key])

    def _kill(self, node: Node) -> list[Move]:
        """Give up a block that cannot be read any more, with all its descendants."""
        follow: list[Move] = []
        for lost in list(self.index.subtree(node)):
            for tier in range(self.num_tiers):
                if lost.tiers >> tier & 1:
                    self._doom(lost, tier)
            lost.dead = True
            follow += self._settle(lost)
        self.index.detach(node)
        return follow

    def _resolve(self, node: Node) -> list[Move]:
        """After a change: a block that nothing holds and nothing brings takes its descendants along."""
        if node.tiers or node.moves or node.dead:
            return self._settle(node)
        return self._kill(node)

    def _settle(self, node: Node) -> list[Move]:
        """Once nothing is in flight: order the drop of doomed copies, or let a dead node go."""
        if node.moves:
            return []
        if not node.doomed:
            self.index.sweep_out(node)
            return []
        drops = [Move(node.key, tier, None) for tier in range(self.num_tiers) if node.doomed >> tier & 1]
        node.moves = len(drops)
        return drops

    def _shrink(self, tier: int, leaving: int) -> list[Move]:
        """Drops for what a tier holds beyond its capacity: blocks held elsewhere, and leaves of the forest.

        ``leaving`` blocks are on their way out already.
        """
        rules = self._rules[tier]
        room = rules.capacity_blocks + leaving
        drops: list[Move] = []
        progress = True
        while progress and self._used[tier] - len(drops) > room:
            progress = False  # a parent refused in this pass may be a leaf in the next
            with closing(rules.policy.evict(lambda key: self._expendable(key, tier))) as victims:
                for victim in victims:
                    drops.append(self._books.drop(self.index[victim], tier))
                    progress = True
                    if self._used[tier] - len(drops) <= room:
                        break
        return drops

    def _expendable(self, key: BlockHash, tier: int) -> bool:
        node = self.index[key]
        return bool(node.tiers & ~(1 << tier)) or node.is_leaf
