"""Placement under everything at once: plans interleaved, failures, leases, damage, restarts.

The machine keeps its own account of what each tier physically holds, changed only by carrying
out moves, and never asks the placement what to expect. Plans are carried out one move at a
time, each in its own order, several at once; reports come later, in batches across plans.
"""

from collections import deque
from functools import lru_cache
from itertools import product

from core_helpers import chain, entries, key, keys, make, word
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

DEPTH = 5
WORDS = ["".join(letters) for size in range(1, DEPTH + 1) for letters in product("ab", repeat=size)]

prompts = st.text("ab", min_size=1, max_size=DEPTH)
places = st.integers(0, 2)
picks = st.integers(0, 30)

key_of = lru_cache(None)(key)


def leaves(move, tier):
    """Whether a move takes the block out of a tier."""
    return move.src == tier and not move.keep


class PlacementMachine(RuleBasedStateMachine):
    @initialize(
        fastest=st.integers(1, 4),
        slower=st.lists(st.integers(0, 4), max_size=2),
        durable=st.sets(st.integers(1, 2)),
    )
    def start(self, fastest, slower, durable):
        self.capacities = [fastest, *slower]
        self.durable = {tier for tier in durable if tier <= len(slower)}
        self.placement = make(*self.capacities, durable=self.durable)
        self.held = [set() for _ in self.capacities]
        """Words that each tier physically holds."""
        self.damaged = [set() for _ in self.capacities]
        """Those among them that were reported unreadable."""
        self.plans = []
        """Moves ordered and not carried out."""
        self.done = []
        """Moves carried out and not reported."""
        self.leases = []
        """``[lease, words]``; damage shortens the words."""
        self.now = 0

    # The model

    def in_flight(self):
        return [move for plan in self.plans for move in plan] + self.done

    def leased(self):
        return {text for _, words in self.leases for text in words}

    def take_orders(self, moves):
        if moves:
            self.plans.append(deque(moves))

    def plan(self, make_plan, placed):
        """Take orders that begin something, and look at who has to leave for it."""
        busy, leased = {word(move.key) for move in self.in_flight()}, self.leased()

        moves = make_plan()

        victims = {word(move.key) for move in moves if move.src is not None and not move.keep}
        assert not victims & {word(each) for each in placed}, "the chain being placed is never a victim"
        assert not victims & leased, "a leased block is never a victim"
        assert not {word(move.key) for move in moves} & busy, "a block in flight is left alone"
        assert len({move.key for move in moves}) == len(moves), "one move a block"
        for tier in range(len(self.held)):
            gone, come = (sum(leaves(move, tier) for move in moves), sum(move.dst == tier for move in moves))
            assert gone <= come, "nobody leaves unless somebody takes the place"
        self.take_orders(moves)

    def good_copy_besides(self, text, tier):
        """Whether another tier holds a copy that is reported, undamaged and stays."""
        on_the_way = [move for move in self.in_flight() if word(move.key) == text]
        return any(
            text in self.held[other] - self.damaged[other]
            and not any(leaves(move, other) or move.dst == other for move in on_the_way)
            for other in range(len(self.held))
            if other != tier
        )

    def carry_out(self, move):
        text = word(move.key)
        if move.src is not None:
            assert text in self.held[move.src], "a move must start where the block is"
        if move.src is not None and not move.keep:
            self.take_away(text, move.src)
        if move.dst is not None:
            assert text not in self.held[move.dst], "a move must not bring what is there"
            self.held[move.dst].add(text)
            assert len(self.held[move.dst]) <= self.capacities[move.dst], "room before use"
        self.done.append(move)

    def give_up(self, move):
        if move.src is not None and not move.keep:
            self.take_away(word(move.key), move.src)
        self.take_orders(self.placement.abort([move]))

    def take_away(self, text, tier):
        self.held[tier].discard(text)
        self.damaged[tier].discard(text)

    def idle(self):
        return not self.plans and not self.done

    # Plans

    @rule(text=prompts, skip=st.integers(0, 2), place=places)
    def write(self, text, skip, place):
        part = chain(text, start=min(skip, len(text) - 1))
        dst = place if place < len(self.held) else 0
        self.plan(lambda: self.placement.plan_write(part, dst), part.keys)

    @rule(text=prompts, place=places)
    def promote(self, text, place):
        dst = place if place < len(self.held) else 0
        self.plan(lambda: self.placement.plan_promote(keys(text), dst), keys(text))

    @rule(text=st.none() | prompts)
    def copy_down(self, text):
        names = None if text is None else keys(text)
        self.plan(lambda: self.placement.plan_copy_down(names), names or [])

    @rule(text=prompts)
    def touch(self, text):
        self.placement.touch(keys(text))

    # Carrying out

    @precondition(lambda self: self.plans)
    @rule(pick=picks, fails=st.sampled_from([False, False, False, True]))
    def step(self, pick, fails):
        plan = self.plans[pick % len(self.plans)]
        move = plan.popleft()
        if not plan:
            self.plans.remove(plan)
        (self.give_up if fails else self.carry_out)(move)

    @precondition(lambda self: self.done)
    @rule()
    def report(self):
        done, self.done = self.done, []
        self.take_orders(self.placement.commit(done))

    @rule()
    def settle(self):
        while not self.idle():
            while self.plans:
                self.step(0, False)
            if self.done:
                self.report()

    # Leases and damage

    @rule(text=prompts, patience=st.integers(1, 5))
    def lease(self, text, patience):
        lease = self.placement.lease(keys(text), text, self.now + patience)
        self.leases.append([lease, [word(each) for each in lease.keys]])

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def release(self, pick):
        lease, _ = self.leases.pop(pick % len(self.leases))
        self.placement.release(lease)

    @rule(ticks=st.integers(1, 3))
    def expire(self, ticks):
        self.now += ticks
        late = {id(lease) for lease, _ in self.leases if lease.deadline <= self.now}

        assert {id(lease) for lease in self.placement.index.expire(self.now)} == late
        self.leases = [each for each in self.leases if id(each[0]) not in late]

    @precondition(lambda self: any(self.held))
    @rule(pick=picks)
    def damage(self, pick):
        copies = sorted((text, tier) for tier, words in enumerate(self.held) for text in words)
        text, tier = copies[pick % len(copies)]
        if any(leaves(move, tier) or move.dst == tier for move in self.in_flight() if word(move.key) == text):
            return  # on its way: whoever carries it finds the damage, and aborts
        self.damaged[tier].add(text)
        if not self.good_copy_besides(text, tier):
            for lease in self.leases:
                lease[1] = lease[1][: lease[1].index(text)] if text in lease[1] else lease[1]
        self.take_orders(self.placement.forget(key_of(text), tier))

    # Restart

    @precondition(lambda self: self.durable)
    @rule(capacities=st.none() | st.lists(st.integers(1, 4), min_size=3, max_size=3))
    def restart(self, capacities):
        self.crash(capacities or self.capacities)
        expected = self.survivors()

        for tier in sorted(self.durable):
            listed = entries(*sorted(self.held[tier], reverse=True))
            self.take_orders(self.placement.restore(tier, listed))
        self.settle()

        for words, room in zip(self.held, self.capacities, strict=True):
            assert len(words) <= room, "a restart obeys a capacity that shrank"
        if all(len(words) <= room for words, room in zip(expected, self.capacities, strict=True)):
            assert self.held == expected, "a restart keeps exactly what has its parents"

    def crash(self, capacities):
        self.held = [words if tier in self.durable else set() for tier, words in enumerate(self.held)]
        self.damaged = [set() for _ in self.held]  # to be found again by reading
        self.plans, self.done, self.leases = [], [], []
        self.capacities = capacities[: len(self.held)]
        self.placement = make(*self.capacities, durable=self.durable)

    def survivors(self):
        """What each tier should hold after a restart with room for everything."""
        kept, alive, given_up = [set() for _ in self.held], {""}, set()
        for tier in sorted(self.durable):
            for text in sorted(self.held[tier], key=len):
                if text[:-1] in alive and text not in given_up:
                    alive.add(text)
                    kept[tier].add(text)
                else:
                    given_up.add(text)
        return kept

    # What always holds

    @invariant()
    def a_match_names_a_tier_that_holds_a_good_copy(self):
        for text in WORDS:
            for tier in self.placement.match([key_of(text)]).tiers:
                assert text in self.held[tier] - self.damaged[tier]

    @invariant()
    def a_readable_block_has_its_parent_readable_or_in_flight(self):
        for text in WORDS:
            if len(text) > 1 and self.placement.match([key_of(text)]).tiers:
                assert self.placement.match([key_of(text[:-1])]).stopped_by != "not_held"

    @invariant()
    def a_leased_block_stays_readable(self):
        for _, words in self.leases:
            match = self.placement.match([key_of(text) for text in words])
            assert match.stopped_by is None

    @invariant()
    def every_place_is_accounted_for(self):
        coming = [move for plan in self.plans for move in plan]
        for tier, words in enumerate(self.held):
            reserved = sum(move.dst == tier for move in coming)
            unreported = sum(leaves(move, tier) for move in self.done)
            assert self.placement.used_blocks(tier) == len(words) + reserved + unreported

    @invariant()
    def what_is_held_is_readable_once_nothing_is_in_flight(self):
        if self.idle():
            readable = {text for text in WORDS if self.placement.match([key_of(text)]).tiers}
            assert readable == set().union(*self.held)

    @invariant()
    def the_books_balance(self):
        self.placement.check()

    def teardown(self):
        if not hasattr(self, "placement"):
            return
        self.settle()
        self.every_place_is_accounted_for()
        self.what_is_held_is_readable_once_nothing_is_in_flight()
        for lease, _ in self.leases:
            self.placement.release(lease)
        assert self.placement.index.leases == set()


TestPlacement = PlacementMachine.TestCase
TestPlacement.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
