"""Two processes on one disk: what each believes of it is true once it has been told everything.

The model is the disk itself, a host tier for each process, and for each a list of names that the other has
touched since it was last told. Only moves carried out change it. News are told as the disk tier tells
them: for some names touched, whether they are there now.
"""

from collections import deque
from functools import lru_cache
from itertools import product

from core_helpers import chain, entries, key, keys, make, word
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvtier.listing import Listing

WORDS = ["".join(letters) for size in range(1, 4) for letters in product("ab", repeat=size)]

prompts = st.sampled_from(WORDS)
picks = st.integers(0, 30)
processes = st.integers(0, 1)

key_of = lru_cache(None)(key)


class Process:
    """One of the two: its placement and what it has in memory."""

    def __init__(self, room_in_memory, room_on_disk):
        self.room = room_in_memory
        rooms = [room_on_disk] if room_in_memory is None else [room_in_memory, room_on_disk]
        self.placement = make(*rooms, durable={len(rooms) - 1})
        self.disk = len(rooms) - 1
        """Number of the shared tier."""
        self.memory = set()
        self.plans, self.done = [], []
        self.untold = []
        """Words that the other has touched on disk."""

    @property
    def idle(self):
        return not self.plans and not self.done

    def take_orders(self, moves):
        if moves:
            self.plans.append(deque(moves))

    def served(self):
        return {text for text in WORDS if self.placement.match([key_of(text)]).tiers}


class SharedDisk(RuleBasedStateMachine):
    @initialize(rooms=st.tuples(st.none() | st.integers(1, 4), st.none() | st.integers(1, 4)), room=st.integers(1, 7))
    def start(self, rooms, room):
        self.room = room
        self.on_disk = {}
        """Words, oldest first."""
        self.processes = [Process(each, room) for each in rooms]

    # Carrying out

    def bring(self, process, text):
        """Write to the disk; False if it is full."""
        if text in self.on_disk:
            return True
        if len(self.on_disk) >= self.room:
            return False
        self.on_disk[text] = None
        self.other(process).untold.append(text)
        return True

    def take_away(self, process, text):
        if text in self.on_disk:
            del self.on_disk[text]
            self.other(process).untold.append(text)

    def other(self, process):
        return self.processes[process is self.processes[0]]

    def carry_out(self, process, move, *, fails=False):
        text, disk = word(move.key), process.disk
        if move.src is not None and move.src != disk:
            assert text in process.memory, "a move must start where the block is"
        if move.src == disk and move.keep and text not in self.on_disk:  # taken away by the other
            process.take_orders(process.placement.forget(move.key, disk))
            fails = True
        if move.src is not None and not move.keep:
            if move.src == disk:
                self.take_away(process, text)
            else:
                process.memory.discard(text)
        if fails or (move.dst == disk and not self.bring(process, text)):
            process.take_orders(process.placement.abort([move]))
            return
        if move.dst is not None and move.dst != disk:
            assert text not in process.memory, "a move must not bring what is there"
            process.memory.add(text)
            assert len(process.memory) <= process.room, "room before use"
        process.done.append(move)

    def step(self, process, pick, *, fails=False):
        plan = process.plans[pick % len(process.plans)]
        move = plan.popleft()
        process.plans = [each for each in process.plans if each]
        self.carry_out(process, move, fails=fails)

    @rule(who=processes, turns=st.lists(picks, min_size=1, max_size=8), failing=st.sampled_from([None, None, 0, 1]))
    def work(self, who, turns, failing):
        process = self.processes[who]
        for turn, pick in enumerate(turns):
            if process.plans:
                self.step(process, pick, fails=turn == failing)

    @rule(who=processes)
    def report(self, who):
        process = self.processes[who]
        done, process.done = process.done, []
        process.take_orders(process.placement.commit(done))

    @rule(who=processes)
    def settle(self, who):
        process = self.processes[who]
        while not process.idle:
            while process.plans:
                self.step(process, 0)
            self.report(who)

    # Plans

    @rule(who=processes, text=prompts, demote=st.sampled_from([True, True, False]))
    def write(self, who, text, demote):
        placement = self.processes[who].placement
        self.processes[who].take_orders(placement.plan_write(chain(text), demote=demote))

    @rule(who=processes, text=prompts)
    def promote(self, who, text):
        self.processes[who].take_orders(self.processes[who].placement.plan_promote(keys(text)))

    @rule(who=processes)
    def copy_down(self, who):
        self.processes[who].take_orders(self.processes[who].placement.plan_copy_down())

    @rule(who=processes, text=prompts)
    def read(self, who, text):
        """A block that the other has taken away is found missing."""
        process = self.processes[who]
        process.placement.touch(keys(text))
        match = process.placement.match(keys(text))
        for each, tier in zip(match.keys, match.tiers, strict=True):
            if tier == process.disk and word(each) not in self.on_disk:
                process.take_orders(process.placement.forget(each, tier))
                return

    @precondition(lambda self: self.on_disk)
    @rule(who=processes, pick=picks)
    def find_damaged(self, who, pick):
        process = self.processes[who]
        text = list(self.on_disk)[pick % len(self.on_disk)]
        process.take_orders(process.placement.forget(key_of(text), process.disk))

    @rule(who=processes, room=st.integers(0, 7))
    def resize(self, who, room):
        self.processes[who].placement.resize(self.processes[who].disk, min(room, self.room))

    @rule(who=processes, readable=st.booleans(), takes=st.booleans())
    def fail_or_recover(self, who, readable, takes):
        process = self.processes[who]
        process.placement.set_available(process.disk, readable=readable, takes=takes)

    # News

    @rule(who=processes, count=st.sampled_from([1, 2, 100, 100]))
    def tell(self, who, count):
        process = self.processes[who]
        touched, process.untold = dict.fromkeys(process.untold[:count]), process.untold[count:]
        there = [text for text in touched if text in self.on_disk]
        gone = [key_of(text) for text in touched if text not in self.on_disk]
        process.take_orders(process.placement.vanish(process.disk, gone))
        process.placement.discover(process.disk, entries(*there))

    @rule(who=processes)
    def look_at_everything(self, who):
        process = self.processes[who]
        process.untold = []
        process.take_orders(process.placement.reconcile(process.disk, Listing.of(entries(*self.on_disk))))

    @rule(who=processes, in_columns=st.booleans())
    def restart(self, who, in_columns):
        old = self.processes[who]
        new = self.processes[who] = Process(old.room, self.room)
        listed = entries(*self.on_disk)
        listed = Listing.of(listed) if in_columns else listed
        new.take_orders(new.placement.restore(new.disk, listed, shared=True))

    # What always holds

    @invariant()
    def the_books_balance(self):
        for process in self.processes:
            process.placement.check()

    @invariant()
    def places_in_memory_are_accounted_for(self):
        for process in self.processes:
            if process.disk:
                coming = [move for plan in process.plans for move in plan]
                reserved = sum(move.dst == 0 for move in coming)
                unreported = sum(move.src == 0 and not move.keep for move in process.done)
                assert process.placement.used_blocks(0) == len(process.memory) + reserved + unreported

    @invariant()
    def what_is_served_has_its_parent_readable_or_in_flight(self):
        for process in self.processes:
            for text in process.served():
                if len(text) > 1:
                    assert process.placement.match([key_of(text[:-1])]).stopped_by != "not_held"

    @invariant()
    def what_has_been_told_is_true(self):
        for process in self.processes:
            if process.idle and not process.untold:
                assert process.placement.used_blocks(process.disk) == len(self.on_disk)
                if process.placement.index.readable >> process.disk & 1:
                    held = process.memory | set(self.on_disk)
                    whole = {text for text in held if all(text[:end] in held for end in range(1, len(text)))}
                    assert process.served() == whole

    def teardown(self):
        if not hasattr(self, "processes"):
            return
        for process in self.processes:
            process.placement.set_available(process.disk, readable=True, takes=True)
        while not all(process.idle and not process.untold for process in self.processes):
            for who in (0, 1):
                self.settle(who)
                self.tell(who, 100)
        self.the_books_balance()
        self.what_has_been_told_is_true()
        for process in self.processes:
            assert not process.placement._intake._heard, "nothing is remembered of what is over"


TestSharedDisk = SharedDisk.TestCase
TestSharedDisk.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
