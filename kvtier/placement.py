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
* leased blocks and blocks in flight are never victims, though a block may sink into the room that a copy of its
  own has left further down; the chain being written may sink, so that
  a prompt longer than a tier spills into the next, but none of it is dropped to make room for
  the rest; a chain being promoted or copied does neither.

``commit``, ``abort`` and ``forget`` return follow-up drops: blocks that became unreachable in
the meantime. They are orders like any others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import repeat

from kvtier.books import Books, Move, TierRules, make_move
from kvtier.hashing import BlockHash, Chain, Label
from kvtier.index import Lease, Match, Node, PrefixIndex
from kvtier.intake import Intake
from kvtier.listing import Listing
from kvtier.policy.base import Expiring
from kvtier.room import Sweep

__all__ = ["Move", "Placement", "TierRules"]

_Arrivals = defaultdict[int, list[Node]]
"""Blocks that have come to a tier."""


class Placement:
    """Decides over an ordered list of tiers, fastest first. Not thread safe.

    Args:
        tiers: Fastest first.
        index: An empty one that the tiers' policies look into; one of its own if None.
    """

    def __init__(self, tiers: Sequence[TierRules], index: PrefixIndex | None = None) -> None:
        self._books = Books(tiers, PrefixIndex() if index is None else index)
        self._intake = Intake(self._books)
        self.index = self._books.index
        self._rules = self._books.rules
        self._used = self._books.used
        self._expiring = [(i, rules.policy) for i, rules in enumerate(tiers) if isinstance(rules.policy, Expiring)]

    @property
    def num_tiers(self) -> int:
        """Tiers it decides over."""
        return len(self._rules)

    @property
    def expires(self) -> bool:
        """Whether blocks go by time in some tier, so that ``plan_expire`` is to be called."""
        return bool(self._expiring)

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
        """Count one use of each block of a prompt, in every tier that holds it. Some may be held nowhere."""
        if not keys:  # no prompt: a policy may count them
            return
        for rules in self._rules:
            rules.policy.touch(keys)
            if rules.admission is not None:
                rules.admission.touch(keys)

    def arrange(self, keys: Sequence[BlockHash]) -> None:
        """The blocks of a prompt, used and stored one after the other, age as one: the tail is older than the head."""
        for policy in self._books.arranging:
            if policy is not None:
                policy.arrange(keys)

    # Plans

    def worth_writing(self, chain: Chain, dst: int = 0) -> Chain:
        """A chain up to the first block that is not held and not worth writing to a tier.

        To be asked once for each prompt, before its plans: an admission may count what it lets in.
        """
        admission = self._rules[dst].admission
        if admission is None:
            return chain
        new = [key for key in chain.keys if self.index.get(key) is None]
        worth = admission.admit(new)
        if worth == len(new):
            return chain
        return chain.part(0, chain.keys.index(new[worth]))

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
        keys, labels, new = chain.keys, chain.labels, list[Move]()
        before = [label.parent for label in labels[:1]]  # of a chain that starts mid-prompt
        with Sweep(self._books, [*before, *keys, *hold], may_sink=True, demote=demote) as sweep:
            quiet, at = self._intake.is_quiet, 0
            while at < len(keys):
                node = self.index.get(keys[at])
                if node is None and not quiet and self._intake.claim(keys[at], labels[at]):
                    at += 1
                elif node is None:
                    if not self._books.parent_alive(labels[at]):
                        break
                    # The first one alone: what it hangs on is no leaf any more when the others make room.
                    wanted = self._fresh_run(chain, at) if quiet and new else 1
                    count = sweep.reserve_many(dst, wanted)
                    if count:
                        self.index.extend(keys[at : at + count], labels[at : at + count], 1 << dst)
                        new += map(make_move, zip(keys[at : at + count], repeat(None), repeat(dst), repeat(False)))
                    if count < wanted:
                        break
                    at += count
                elif node.dead:
                    break
                else:
                    at += 1
        return sweep.orders() + new

    def _fresh_run(self, chain: Chain, at: int) -> int:
        """How many blocks of a chain from a number on are not listed at all, each the parent of the next."""
        keys, labels, awake = chain.keys, chain.labels, self.index.nodes  # none is asleep: its parent would be held
        end = at + 1
        while end < len(keys) and keys[end] not in awake and labels[end].parent == keys[end - 1]:
            end += 1
        return end - at if len(set(keys[at:end])) == end - at else 1  # a name that comes twice is one block

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
                if not self.index.readable >> src & 1 or not sweep.reserve(dst):
                    break
                self._books.begin(node, 1 << dst)
                up.append(make_move((key, src, dst, True)))
        return sweep.orders() + up

    def plan_copy_down(self, keys: Sequence[BlockHash] | None = None) -> list[Move]:
        """Orders to copy blocks that only faster tiers hold to the last one; they also stay above.

        Args:
            keys: Names to copy, parents before children, as far as they are worth writing; all there are if None.
        """
        last = self.num_tiers - 1
        admission = self._rules[last].admission
        if keys is None:
            above = [node for node in self.index.alive(besides=last) if node.tiers & ~(1 << last)]
            keys = [node.key for node in sorted(above, key=lambda node: (node.depth, node.key))]
        elif admission is not None:
            keys = keys[: admission.admit(keys)]
        down: list[Move] = []
        with Sweep(self._books, keys) as sweep:
            for key in keys:
                node = self.index.get(key)
                if node is None or not node.tiers or node.tiers >> last & 1 or node.moves:
                    continue
                if not sweep.reserve(last):
                    break
                self._books.begin(node, 1 << last)
                down.append(Move(key, node.fastest, last, keep=True))
        return sweep.orders() + down

    def plan_expire(self) -> list[Move]:
        """Orders for blocks whose time in a tier is over: they sink, or go with all that hangs on them.

        A block that is in flight, or that a lease needs, is asked about again by the next call.
        """
        moves: list[Move] = []
        for tier, policy in self._expiring:
            stuck: list[Node] = []
            with Sweep(self._books, ()) as sweep:
                for key in policy.lapsed():
                    node = self.index[key]
                    if not (node.moves or node.leases or sweep.send_away(node, tier)):
                        stuck.append(node)
            moves += sweep.orders()
            for node in stuck:  # now: what hangs on it may lie in a tier that was in the midst of a sweep
                if not (node.dead or any(each.leases for each in self.index.subtree(node))):
                    moves += self._books.kill(node)
        return moves

    # Reports

    def commit(self, moves: Iterable[Move]) -> list[Move]:
        """Record moves that were carried out; returns follow-up drops."""
        arrived, sunk = _Arrivals(list), _Arrivals(list)
        report = self._commit_quietly if self._intake.is_quiet else self._commit_and_hear
        follow = report(moves, arrived, sunk)
        for tier, victims in sunk.items():  # they come worst first, not head first
            self._insert(tier, reversed(victims))
        for tier, others in arrived.items():
            self._insert(tier, others)
        return follow

    def _commit_quietly(self, moves: Iterable[Move], arrived: _Arrivals, sunk: _Arrivals) -> list[Move]:
        """``commit`` where there is nothing of others to think of. Calls are written out: replays live here."""
        nodes, used, follow = self.index.nodes, self._used, list[Move]()
        for key, src, dst, keep in moves:
            node = nodes[key]  # awake, since it has a move
            node.moves -= 1
            if not node.moves:
                node.changing = 0
            if src is not None and not keep:
                used[src] -= 1
                if node.doomed:
                    node.doomed &= ~(1 << src)
            if dst is not None and node.dead:
                node.doomed |= 1 << dst
            elif dst is not None:
                node.tiers |= 1 << dst
                (sunk if src is not None and src < dst and not keep else arrived)[dst].append(node)
                if src is not None and dst < src:
                    self._drop_below(node, src)
            if node.dead and not (node.moves or node.doomed):
                del nodes[key]
            elif node.doomed or not node.tiers:
                follow += self._end(node)
        return follow

    def _commit_and_hear(self, moves: Iterable[Move], arrived: _Arrivals, sunk: _Arrivals) -> list[Move]:
        """``commit`` where others may have moved the same blocks, or left some that wait for these."""
        intake, follow = self._intake, list[Move]()
        for key, src, dst, keep in moves:
            node = self.index.nodes[key]
            self._books.end(node)
            if src is not None and not keep:
                intake.left(node, src)
            if dst is not None:
                if not intake.arrived(node, dst) or node.dead:
                    node.doomed |= 1 << dst
                else:
                    node.tiers |= 1 << dst
                    (sunk if src is not None and src < dst and not keep else arrived)[dst].append(node)
                    intake.adopt(key)
                    if src is not None and dst < src:
                        self._drop_below(node, src)
            follow += self._end(node)
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
            self._books.end(node)
            if move.dst is not None:
                self._used[move.dst] -= 1
            if move.src is not None and not move.keep:
                self._intake.left(node, move.src)
            follow += self._end(node)
        return follow

    def forget(self, key: BlockHash, tier: int) -> list[Move]:
        """A tier lost or damaged a block: returns drops for it and for what became unreachable."""
        node = self.index.get(key)
        if node is None or not node.tiers >> tier & 1:
            return []
        self._books.doom(node, tier)
        return self._books.resolve(node)

    # What is there without an order

    def restore(self, tier: int, entries: Iterable[tuple[BlockHash, Label]], *, shared: bool = False) -> list[Move]:
        """Take up what a tier already holds, oldest first; returns drops for what cannot be used.

        Unusable: a block whose parent is not held, and what exceeds the tier's capacity. The
        blocks of a ``Listing`` become objects only when they are used, if they are the first.

        Args:
            tier: Its number.
            entries: What it holds.
            shared: Others use the tier too. A block without its parent stays, for it may be theirs.
        """
        return self._intake.restore(tier, entries, shared=shared)

    def discover(self, tier: int, entries: Iterable[tuple[BlockHash, Label]]) -> None:
        """Take up blocks that another process has brought to a tier."""
        self._intake.discover(tier, entries)

    def vanish(self, tier: int, keys: Iterable[BlockHash]) -> list[Move]:
        """Another process has removed blocks from a tier; returns drops for what became unreachable."""
        return self._intake.vanish(tier, keys)

    def reconcile(
        self, tier: int, listing: Listing, *, moved: Collection[BlockHash] = (), anew: bool = False
    ) -> list[Move]:
        """Make up for changes of a tier that nobody has told of; returns drops for what became unreachable.

        Args:
            tier: Its number.
            listing: Everything it held a moment ago.
            moved: Blocks whose moves have ended since, so that their reports are newer than the listing.
            anew: See ``News``.
        """
        return self._intake.reconcile(tier, listing, moved, anew=anew)

    def resize(self, tier: int, capacity_blocks: int) -> None:
        """A tier can hold more or fewer blocks than before; fewer takes effect as room is made."""
        self._rules[tier].capacity_blocks = capacity_blocks

    def set_available(self, tier: int, *, readable: bool, takes: bool) -> None:
        """Say whether a tier can be read and written at present. What cannot be read is a miss, and stays held."""
        self._rules[tier].takes = takes
        mask = 1 << tier
        self.index.readable = self.index.readable | mask if readable else self.index.readable & ~mask

    def check(self) -> None:
        """Raise AssertionError if the books do not balance. O(blocks)."""
        for tier, rules in enumerate(self._rules):
            bit = 1 << tier
            asleep = self.index.num_resting(tier)
            held = asleep + sum(bool((n.tiers | n.doomed) & bit) for n in self.index.nodes.values())
            held += len(self._books.strangers.of(tier))
            assert held <= self._used[tier], f"tier {tier}: {held} held, {self._used[tier]} accounted"
            readable = asleep + sum(bool(n.tiers & bit) for n in self.index.nodes.values())
            assert len(rules.policy) == readable, f"tier {tier}: policy holds {len(rules.policy)} of {readable}"
        self.index.check()
        for node in self.index.awake():
            assert node.tiers or node.moves, "a node without a copy or a move"
            assert node.depth == 0 or (node.parent is not None and not node.parent.dead), "an orphan"

    def _insert(self, tier: int, nodes: Iterable[Node]) -> None:
        """Blocks have come to a tier, less those that a later move of their batch took along."""
        self._rules[tier].policy.insert([node.key for node in nodes if node.tiers >> tier & 1])

    def _end(self, node: Node) -> list[Move]:
        """A move of a block has ended: see what others have done meanwhile, and what follows."""
        self._intake.catch_up(node)
        follow = self._books.resolve(node)
        if node.dead and not node.moves:
            self._intake.claim(node.key, node.label)  # it lies where others brought it, and can be held again
        return follow

    def _drop_below(self, node: Node, src: int) -> None:
        """A promoted block leaves the tier it came from, unless it costs a write to bring it back."""
        if not self._rules[src].durable and node.tiers >> src & 1:
            self._books.doom(node, src)
