"""Placement under everything at once: plans interleaved, failures, leases, damage, restarts.

The machine keeps its own account of what each tier physically holds, changed only by carrying
out moves, and never asks the placement what to expect. Plans are carried out one move at a
time, each in its own order, several at once; reports come later, in batches across plans.
"""

from collections import deque
from functools import lru_cache
from itertools import product

from core_helpers import Clock, Only, chain, entries, key, keys, word
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvtier.index import PrefixIndex
from kvtier.listing import Listing
from kvtier.placement import Placement, TierRules
from kvtier.policy.base import Reconsidering, Setting
from kvtier.policy.registry import make_policy
from kvtier.policy.ttl import TTL

DEPTH = 4
WORDS = ["".join(letters) for size in range(1, DEPTH + 1) for letters in product("ab", repeat=size)]

prompts = st.sampled_from(WORDS)
places = st.integers(0, 2)
picks = st.integers(0, 30)

key_of = lru_cache(None)(key)


def leaves(move, tier):
    """Whether a move takes the block out of a tier."""
    return move.src == tier and not move.keep


class PlacementMachine(RuleBasedStateMachine):
    @initialize(
        tiers=st.sampled_from([3, 3, 2, 2, 1, 1]),
        capacities=st.tuples(st.integers(1, 4), st.integers(0, 5), st.integers(0, 6)),
        durable=st.sets(st.integers(1, 2)),
        policy=st.sampled_from(["lru", "lru", "fifo", "sieve", "s3fifo"]),
        lives=st.just({}) | st.dictionaries(places, st.integers(1, 4)),
        barred=st.just({}) | st.dictionaries(places, st.sets(prompts)),
        before=st.lists(prompts, min_size=2, max_size=6),
    )
    def start(self, tiers, capacities, durable, policy, lives, barred, before):
        self.capacities = list(capacities[:tiers])
        self.durable = {tier for tier in durable if tier < tiers}
        self.policy = policy
        self.lives = lives
        """Seconds that a block lives in a tier, where it does not live for ever."""
        self.barred = barred
        """Words that a tier's admission does not let in."""
        self.clock = Clock()
        self.begin()
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
        self.losses = False
        """A move failed or a block was damaged since nothing was in flight the last time."""
        for text in before:
            self.write(text)
            self.settle()

    def begin(self):
        """A placement that holds nothing, with the machine's rules."""
        index = PrefixIndex()
        self.since = [{} for _ in self.capacities]
        """When a block's life in a tier began."""
        self.placement = Placement([self.rules_of(tier, index) for tier in range(len(self.capacities))], index)

    def rules_of(self, tier, index):
        setting = Setting(capacity_blocks=self.capacities[tier])
        policy = make_policy(self.policy, setting)
        if tier in self.lives:
            policy = TTL(policy, self.lives[tier], self.clock, depth=lambda key: index[key].depth)
        admission = Only(*set(WORDS) - self.barred[tier]) if tier in self.barred else None
        return TierRules(self.capacities[tier], policy, durable=tier in self.durable, admission=admission)

    # The model

    def in_flight(self):
        return [move for plan in self.plans for move in plan] + self.done

    def leased(self):
        return {text for _, words in self.leases for text in words}

    def take_orders(self, moves):
        if moves:
            self.plans.append(deque(moves))

    def plan(self, make_plan, placed, *, may_sink=False):
        """Take orders that begin something, and look at who has to leave for it."""
        busy, leased = {word(move.key) for move in self.in_flight()}, self.leased()

        moves = make_plan()

        victims = {word(move.key) for move in moves if move.src is not None and not move.keep}
        own = victims & {word(each) for each in placed}
        lost = {
            word(move.key) for move in moves if move.dst is None and sum(word(move.key) in t for t in self.held) == 1
        }
        assert not own & lost, "none of the chain being placed is dropped for the rest"
        assert may_sink or not own, "a chain being promoted or copied makes no room for itself"
        assert not victims & leased, "a leased block is never a victim"
        assert not {word(move.key) for move in moves} & busy, "a block in flight is left alone"
        assert len({(move.key, move.src) for move in moves}) == len(moves), "one move for each copy"
        for tier in range(len(self.held)):
            gone, come = (sum(leaves(move, tier) for move in moves), sum(move.dst == tier for move in moves))
            assert gone <= come, "nobody leaves unless somebody takes the place"
        self.take_orders(moves)
        return moves

    def one_of(self, tiers, pick):
        words = sorted(set().union(*tiers))
        return words[pick % len(words)]

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
        self.losses = True
        if move.src is not None and not move.keep:
            self.take_away(word(move.key), move.src)
        self.take_orders(self.placement.abort([move]))

    def take_away(self, text, tier):
        self.held[tier].discard(text)
        self.damaged[tier].discard(text)

    def idle(self):
        return not self.plans and not self.done

    # Plans

    @rule(text=prompts)
    def write(self, text):
        held = set().union(*self.held)
        missing = [text[: i + 1] for i in range(len(text)) if text[: i + 1] not in held]
        was_idle, free = self.idle(), self.capacities[0] - len(self.held[0])
        others = sum(not text.startswith(each) for each in self.held[0])

        moves = self.plan(lambda: self.placement.plan_write(chain(text)), keys(text), may_sink=True)

        new = [word(move.key) for move in moves if move.src is None]
        if was_idle:
            assert new == missing[: len(new)], "a prompt is taken up from its first missing block on"
            assert len(new) >= min(free, len(missing)), "free places are used"
        if was_idle and len(self.held) == 1 and not self.leases:
            asks_again = isinstance(self.placement._rules[0].policy, Reconsidering)
            room = free + (others if asks_again and self.policy != "lru" else min(others, 1))
            assert len(new) >= min(room, len(missing)), "who may leave is found"

    @rule(text=prompts, start=st.integers(1, 2), place=places)
    def write_part(self, text, start, place):
        part = chain(text, start=min(start, len(text) - 1))
        self.plan(lambda: self.placement.plan_write(part, place % len(self.held)), part.keys, may_sink=True)

    @rule(text=prompts)
    def write_by_drops(self, text):
        moves = self.plan(lambda: self.placement.plan_write(chain(text), demote=False), keys(text), may_sink=True)

        assert all(move.src in {None, 0} and None in {move.src, move.dst} for move in moves), "nobody sinks"
        lone = [sum(word(move.key) in tier for tier in self.held) == 1 for move in moves if move.src == 0]
        assert lone == sorted(lone), "what lies elsewhere too is dropped before what is lost"

    @precondition(lambda self: any(self.held[1:]))
    @rule(pick=picks, place=places)
    def promote(self, pick, place):
        names = keys(self.one_of(self.held[1:], pick))
        self.plan(lambda: self.placement.plan_promote(names, place % len(self.held)), names)

    @precondition(lambda self: any(self.held[:-1]))
    @rule(pick=st.none() | picks)
    def copy_down(self, pick):
        names = None if pick is None else keys(self.one_of(self.held[:-1], pick))
        self.plan(lambda: self.placement.plan_copy_down(names), names or [])

    @rule(text=prompts)
    def touch(self, text):
        self.placement.touch(keys(text))

        for since in self.since:
            since.update((word(each), self.clock.now_s) for each in keys(text) if word(each) in since)

    @rule(text=prompts)
    def arrange(self, text):
        self.placement.arrange(keys(text))

    @rule(text=prompts, place=places)
    def write_what_is_worth_it(self, text, place):
        tier = place % len(self.held)
        worth = self.placement.worth_writing(chain(text), tier)

        barred = self.barred.get(tier, set())
        assert all(word(each) not in barred or self.placement.index.get(each) for each in worth.keys)
        self.plan(lambda: self.placement.plan_write(worth, tier), worth.keys, may_sink=True)

    @rule(ticks=st.integers(0, 3))
    def time_passes(self, ticks):
        """What is over goes, unless it is leased or in flight; what hangs on it goes too."""
        self.clock.now_s += ticks
        self.forget_lives()  # of what was given up since the last report
        busy, leased, was_idle = {word(move.key) for move in self.in_flight()}, self.leased(), self.idle()
        due = {
            (text, tier)
            for tier, since in enumerate(self.since)
            for text, time_s in since.items()
            if tier in self.lives and time_s + self.lives[tier] <= self.clock.now_s
        }

        moves = self.placement.plan_expire()

        gone = {(word(move.key), move.src) for move in moves}
        assert len(gone) == len(moves), "one move for each copy"
        assert not {text for text, _ in gone} & leased, "a leased block does not expire"
        assert not {text for text, _ in gone} & busy, "a block in flight is left alone"
        assert due or not moves, "nothing goes before its time"
        if was_idle and not leased:  # of a block that is on the move by now, another copy is left to the next call
            moved = {text for text, _ in gone}
            assert {text for text, _ in due} <= moved, "what is over goes"
        self.take_orders(moves)
        self.losses = self.losses or bool(moves)

    # Carrying out

    @precondition(lambda self: self.plans)
    @rule(
        turns=st.lists(picks, min_size=1, max_size=12),
        failing=st.sampled_from([None, None, 0, 1, 2, 3]),
        report=st.booleans(),
    )
    def work(self, turns, failing, report):
        """Carry out a move of one plan, then of another; perhaps one of them fails."""
        for turn, pick in enumerate(turns):
            if self.plans:
                self.step(pick, turn == failing)
        if report:
            self.report()

    @precondition(lambda self: self.done)
    @rule()
    def report(self):
        done, self.done = self.done, []
        came_up = {(word(m.key), m.src) for m in done if m.src is not None and m.dst is not None and m.dst < m.src}

        follow = self.placement.commit(done)

        self.note_lives(done)
        assert all(move.dst is None for move in follow), "what follows from a report is drops"
        if not self.losses:
            expected = {(text, tier) for text, tier in came_up if tier not in self.durable}
            assert {(word(move.key), move.src) for move in follow} == expected, "only promotion leaves a copy to drop"
        self.take_orders(follow)
        self.losses = self.losses and not self.idle()

    def note_lives(self, done):
        for move in done:
            if move.dst is not None:
                self.since[move.dst][word(move.key)] = self.clock.now_s
        self.forget_lives()

    def forget_lives(self):
        """What no policy orders any more has no life."""
        for tier, since in enumerate(self.since):
            bit = 1 << tier
            for text in list(since):
                node = self.placement.index.get(key_of(text))
                if node is None or not node.tiers & bit:
                    del since[text]

    @precondition(lambda self: not self.idle())
    @rule()
    def settle(self):
        while not self.idle():
            while self.plans:
                self.step(0, False)
            self.report()

    def step(self, pick, fails):
        plan = self.plans[pick % len(self.plans)]
        move = plan.popleft()
        self.plans = [each for each in self.plans if each]
        (self.give_up if fails else self.carry_out)(move)

    # Leases and damage

    @precondition(lambda self: any(self.held))
    @rule(pick=picks, patience=st.integers(1, 5))
    def lease(self, pick, patience):
        lease = self.placement.lease(keys(self.one_of(self.held, pick)), "me", self.now + patience)
        self.leases.append([lease, [word(each) for each in lease.keys]])

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def release(self, pick):
        lease, _ = self.leases.pop(pick % len(self.leases))
        self.placement.release(lease)

    @precondition(lambda self: self.leases)
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
        self.losses = True
        self.damaged[tier].add(text)
        if not self.good_copy_besides(text, tier):
            for lease in self.leases:
                lease[1] = lease[1][: lease[1].index(text)] if text in lease[1] else lease[1]
        self.take_orders(self.placement.forget(key_of(text), tier))
        self.forget_lives()

    # Restart

    @precondition(lambda self: any(self.held[tier] for tier in self.durable))
    @rule(
        capacities=st.none() | st.lists(st.integers(1, 4), min_size=3, max_size=3),
        children_first=st.booleans(),
        in_columns=st.booleans(),
    )
    def restart(self, capacities, children_first, in_columns):
        self.crash(capacities or self.capacities)
        expected = self.survivors()

        for tier in sorted(self.durable):
            listed = entries(*sorted(self.held[tier], reverse=children_first))
            self.take_orders(self.placement.restore(tier, Listing.of(listed) if in_columns else listed))
            self.since[tier] = dict.fromkeys(self.held[tier], self.clock.now_s)
        self.forget_lives()
        self.settle()

        for words, room in zip(self.held, self.capacities, strict=True):
            assert len(words) <= room, "a restart obeys a capacity that shrank"
        if all(len(words) <= room for words, room in zip(expected, self.capacities, strict=True)):
            assert self.held == expected, "a restart keeps exactly what has its parents"

    def crash(self, capacities):
        self.held = [words if tier in self.durable else set() for tier, words in enumerate(self.held)]
        self.damaged = [set() for _ in self.held]  # to be found again by reading
        self.plans, self.done, self.leases, self.losses = [], [], [], True
        self.capacities = capacities[: len(self.held)]
        self.begin()

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
