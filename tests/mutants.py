"""Deliberate mistakes, each of which some test must notice.

A property test that kills no mutant is decoration. Each mutant is one line of kvtier, the same
line gone wrong, and what would go wrong with it; the tests named beside its file must fail:

    unmutated copy -> its tests pass        else nothing below would mean anything
    mutated copy   -> its tests fail        killed
                   -> its tests hang        killed
                   -> its tests pass        survived: write the missing test

A mutant that can make no difference is replaced, not excused.

    tests/mutants.py [--only TEXT] [--jobs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 180

#: Hypothesis in a mutated copy: the same examples each time, and no search for a smaller failure.
CONFTEST = """
from hypothesis import Phase, settings

settings.register_profile("mutants", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile("mutants")
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake. ``right`` occurs exactly once in the file; ``wrong`` takes its place."""

    right: str
    wrong: str
    why: str
    """What goes wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The mistakes of one file, and who must notice them."""

    file: str
    tests: tuple[str, ...]
    mutants: tuple[Mutant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one mutant fared."""

    file: str
    line: int
    why: str
    killed_by: str | None
    """The first test to fail, ``"timeout"``, or None for a survivor."""

    seconds: float


GROUPS: tuple[Group, ...] = (
    Group(
        file="kvtier/errors.py",
        tests=("tests/test_errors.py",),
        mutants=(
            Mutant("key.hex()[:12]", "key.hex()[:8]", "a block is named otherwise than elsewhere"),
            Mutant(
                "class TierUnavailableError(TierError, OSError)", "class TierUnavailableError(TierError)", "the tree"
            ),
        ),
    ),
    Group(
        file="kvtier/spec.py",
        tests=("tests/test_spec.py",),
        mutants=(
            Mutant("return 2 * self.layers", "return self.layers", "keys without values"),
            Mutant("isinstance(value, bool) or ", "", "True passes for one layer"),
            Mutant("value < 1", "value < 0", "a block of nothing"),
            Mutant('"float8_e5m2": 1', '"float8_e5m2": 2', "a block twice its size"),
        ),
    ),
    Group(
        file="kvtier/hashing.py",
        tests=("tests/test_hashing.py",),
        mutants=(
            Mutant("blake2b(label.parent + label.tokens", "blake2b(label.tokens", "a name forgets its prefix"),
            Mutant("parent = namespace.root", "parent = BlockHash(bytes(32))", "all models share blocks"),
            Mutant("person=_BLOCK_PERSON", "person=_ROOT_PERSON", "a block can pass for a root; old stores unreadable"),
            Mutant('len(value).to_bytes(8, "little") + value', "value", "one field runs into the next"),
            Mutant('("salt", namespace.salt),', "", "tenants share blocks"),
            Mutant('("adapter", namespace.adapter.encode()),', "", "adapters share blocks"),
            Mutant('("dtype", spec.dtype.encode()),', "", "dtypes share blocks"),
            Mutant("len(array) // block_tokens", "-(-len(array) // block_tokens)", "a partial tail gets a name"),
            Mutant('array.astype("<u4"', 'array.astype(">u4"', "names depend on the byte order"),
            Mutant('not in "iu"', 'not in "iuf"', "probabilities pass for ids"),
            Mutant("(array < 0) | ", "", "an ignore marker wraps around to an id"),
            Mutant("array > MAX_TOKEN_ID)", "array > 2 * MAX_TOKEN_ID)", "a large id wraps around to a small one"),
            Mutant("if array.ndim != 1:", "if array.ndim == 0:", "a batch passes for a prompt"),
            Mutant('if self.revision == "main":', "if False:", "a name that moves"),
            Mutant("if not self.weights:", "if self.weights is None:", "two models of one shape share blocks"),
            Mutant("Label(parent, depth, ", "Label(parent, 0, ", "a restart takes orphans for first blocks"),
            Mutant("parent = name_block(label)", "name_block(label)", "every block hangs off the root"),
        ),
    ),
    Group(
        file="kvtier/context/messages.py",
        tests=("tests/context/test_messages.py", "tests/context/test_policies.py"),
        mutants=(
            Mutant('{"system", "developer", "tools"}', '{"system", "developer"}', "tools are dropped"),
            Mutant("isinstance(self.tokens, bool) or self", "self", "True passes for a token"),
            Mutant("self.tokens < 0", "self.tokens < -1", "a negative message"),
            Mutant(
                "range(self.num_head + 1, len(self.messages))",
                "range(self.num_head + 1, len(self.messages) + 1)",
                "the request is dropped",
            ),
            Mutant("self.messages[number - 1].tokens", "self.messages[number].tokens", "lengths of other cuts"),
            Mutant("number not in joined and ", "", "a result without its call"),
            Mutant("if length <= limit_tokens)", "if length < limit_tokens)", "what just fits is dropped"),
            Mutant(
                "limit_tokens), self.last)", "limit_tokens), self.num_head)", "a chat that cannot fit is sent whole"
            ),
            Mutant("return self.messages[: self.num_head] + ", "return ", "the head is dropped"),
            Mutant("range(made[call] + 1, number + 1)", "range(made[call] + 1, number)", "a cut right before a result"),
            Mutant("range(made[call] + 1, number + 1)", "range(made[call], number + 1)", "no cut before a call"),
            Mutant("if call not in made:", "if False:", "an orphaned result is a KeyError"),
        ),
    ),
    Group(
        file="kvtier/context/ledger.py",
        tests=("tests/context/test_ledger.py",),
        mutants=(
            Mutant("if not ttl_s > 0:", "if ttl_s < 0:", "a lifetime of nothing"),
            Mutant("if now_s >= self._sweep_s:", "if False:", "grows for ever"),
            Mutant("child.expires_s <= now_s", "child.expires_s < now_s", "alive at its last moment"),
            Mutant("self.ttl_s if ttl_s is None else ttl_s", "self.ttl_s", "an hour is five minutes"),
            Mutant("max(node.expires_s, expires_s)", "expires_s", "a short lifetime cuts a long one"),
            Mutant("max(node.expires_s, expires_s)", "node.expires_s or expires_s", "reads refresh nothing"),
            Mutant("tokens + message.tokens", "message.tokens", "the last message alone"),
            Mutant("if child.expires_s > now_s}", "if child.expires_s > now_s + 5}", "forgets what lives"),
        ),
    ),
    Group(
        file="kvtier/context/prices.py",
        tests=("tests/context/test_policies.py", "tests/context/test_formulas.py"),
        mutants=(
            Mutant("price >= 0)", "price >= -1)", "a negative price"),
            Mutant("math.isfinite(price) and ", "", "an infinite price"),
            Mutant("self.read > self.write", "self.read > 2 * self.write", "a read dearer than a write"),
            Mutant("self.write * (tokens - live_tokens)", "self.write * tokens", "what is read is paid twice"),
        ),
    ),
    Group(
        file="kvtier/context/base.py",
        tests=("tests/context/test_policies.py",),
        mutants=(
            Mutant("isinstance(limit, bool) or ", "", "True passes for a limit"),
            Mutant("if low_tokens > high_tokens:", "if False:", "limits the wrong way round"),
            Mutant("if chat.head_tokens > self.high_tokens:", "if False:", "a head over the limit"),
            Mutant(
                "if self._last.first is None:",
                "if False:",
                "a chat that was not cut is cut where its first message goes",
            ),
            Mutant("chat.messages[cut].key == key]", "cut == place]", "a deletion moves the cut"),
            Mutant(
                "min(same, key=lambda cut: abs(cut - place), default=None)",
                "min(same, default=None)",
                "an equal message further up",
            ),
            Mutant("if cut > chat.num_head else None)", "if cut >= chat.num_head else None)", "uncut is taken for cut"),
            Mutant("live_tokens=min(live(messages), tokens)", "live_tokens=live(messages)", "more live than sent"),
            Mutant(
                'reason="whole" if cut == chat.num_head else reason', "reason=reason", "a whole chat is said to be cut"
            ),
            Mutant("max(0, tokens - high_tokens)", "0", "too long, and nobody says so"),
        ),
    ),
    Group(
        file="kvtier/context/limits.py",
        tests=("tests/context/test_policies.py",),
        mutants=(
            Mutant(
                "cut = chat.within(self.high_tokens)",
                "cut = chat.within(self.high_tokens - 1)",
                "a window one token short",
            ),
            Mutant("cut = chat.num_head if last is None else last", "cut = chat.num_head", "the memory is not used"),
            Mutant(
                "if chat.lengths[cut] > self.high_tokens:",
                "if chat.lengths[cut] >= self.high_tokens:",
                "cut at the limit, not above",
            ),
            Mutant(
                'chat.within(self.low_tokens), live, "trimmed"',
                'chat.within(self.high_tokens), live, "trimmed"',
                "hysteresis slides",
            ),
            Mutant(
                "max(cut, chat.within(self.low_tokens))", "chat.within(self.low_tokens)", "an expired chat grows back"
            ),
            Mutant("<= chat.head_tokens:", "< chat.head_tokens:", "a live head hides that the rest expired"),
            Mutant("if low != cut and ", "if ", "a short chat is said to have expired"),
            Mutant("max(0, -(-(total", "max(1, -(-(total", "a short chat loses a chunk"),
            Mutant(
                "-(-(total - self.high_tokens) // self.chunk_tokens)",
                "(total - self.high_tokens) // self.chunk_tokens",
                "a chunk too few",
            ),
            Mutant(
                "cut = chat.within(total - chunks * self.chunk_tokens)",
                "cut = chat.within(self.high_tokens)",
                "a chunked drop slides",
            ),
            Mutant("or isinstance(chunk_tokens, bool) or not", "or not", "True passes for a chunk"),
            Mutant("1 <= chunk_tokens < high_tokens", "0 <= chunk_tokens < high_tokens", "a chunk of nothing"),
        ),
    ),
    Group(
        file="kvtier/context/lasting.py",
        tests=("tests/context/test_policies.py", "tests/context/test_context_properties.py"),
        mutants=(
            Mutant(
                "key=lambda cut: (found[cut], -cut))",
                "key=lambda cut: (found[cut], cut))",
                "of equals the one that keeps less",
            ),
            Mutant(
                "key=lambda cut: (found[cut], -cut))",
                "key=lambda cut: -cut)",
                "the longest context, not the longest live",
            ),
            Mutant("<= self.high_tokens else low", "< 0 else low", "a chat that fits is cut because nothing is live"),
            Mutant(
                "if cut == last or chat.lengths[cut] - found[cut] <= again",
                "",
                "goes by how messages begin, and slides",
            ),
            Mutant("if cut == last or chat.lengths", "if chat.lengths", "a long turn moves a cut that fits"),
            Mutant("found.get(low, chat.head_tokens)", "0", "a fresh start is thought to compute the head"),
            Mutant("if length <= self.high_tokens and", "if", "a live cut that does not fit"),
            Mutant("and (cut <= low or cut == last)", "", "a repeated message costs the chat"),
            Mutant(" or cut == last", "", "a step back makes the last cut cold"),
            Mutant("if tokens > chat.head_tokens:", "if tokens >= chat.head_tokens:", "a head alone makes a cut live"),
            Mutant(
                '"kept" if cut == self._remembered(chat)',
                '"kept" if cut != self._remembered(chat)',
                "recovered is kept",
            ),
            Mutant("        if cut == last:\n", "        if False:\n", "a cut that is kept is said to have expired"),
            Mutant(
                "last is not None and chat.lengths[last] <=",
                "last is not None and chat.lengths[last] >",
                "trimmed is expired",
            ),
            Mutant(
                "self.prices.of(chat.lengths[cut], known[cut]), cut)",
                "self.prices.of(chat.lengths[cut], known[cut]), -cut)",
                "of equals the one that keeps less",
            ),
            Mutant(
                "self.prices.of(chat.lengths[cut], known[cut]), cut)",
                "-known[cut], cut)",
                "the longest live, not the cheapest",
            ),
            Mutant(
                "known = {fallback: live(chat.from_cut(fallback)), **found}",
                "known = {fallback: live(chat.from_cut(fallback))}",
                "no live cut is a choice",
            ),
            Mutant('"cheaper" if found else', '"trimmed" if found else', "why it starts again is not said"),
            Mutant("if known[cut] > chat.head_tokens:", "if False:", "a kept cut is called a fresh start"),
        ),
    ),
    Group(
        file="kvtier/context/choice.py",
        tests=("tests/context/test_policies.py",),
        mutants=(
            Mutant(
                "    Bounded(high_tokens, low_tokens)",
                "    pass",
                "limits the wrong way round pass where one is not used",
            ),
            Mutant("max(1, high_tokens - low_tokens)", "low_tokens", "chunks of another size"),
            Mutant('"longest": partial(LongestLive', '"longest": partial(Hysteresis', "a name for another policy"),
        ),
    ),
    Group(
        file="kvtier/context/formulas.py",
        tests=("tests/context/test_formulas.py",),
        mutants=(
            Mutant("prices.read * (tokens - new_tokens)", "prices.read * 0.9 * (tokens - new_tokens)", "append only"),
            Mutant(
                "prices.write * (high_tokens - head_tokens)", "prices.write * high_tokens", "sliding pays for its head"
            ),
            Mutant(
                "* (low_tokens - head_tokens) * turn_tokens /",
                "* low_tokens * turn_tokens /",
                "a cut pays for its head",
            ),
            Mutant("prices.read * (low_tokens + high_tokens) / 2", "prices.read * high_tokens", "always full"),
            Mutant(
                "low_tokens=high_tokens - chunk_tokens",
                "low_tokens=chunk_tokens",
                "chunks",
            ),
            Mutant("math.sqrt(2 * again", "math.sqrt(again", "the best gap"),
            Mutant("return min(widest, math.sqrt", "return max(0, math.sqrt", "a gap beyond the head"),
            Mutant("if value <= prices.read:", "if value < 0:", "the root of a negative number"),
            Mutant("prices.read * (tokens - low_tokens)", "prices.read * tokens", "payback"),
            Mutant("if saved else math.inf", "if saved else 0.0", "a cut that never pays pays at once"),
            Mutant("idle_share * (prices.write - prices.read)", "idle_share * prices.write", "idle"),
            Mutant("if not 0 <= idle_share <= 1:", "if not 0 <= idle_share:", "a share above all"),
            Mutant('and lower != "head_tokens")', "and False)", "a gap of nothing"),
        ),
    ),
    Group(
        file="kvtier/sim/chat.py",
        tests=("tests/context/test_chat.py", "tests/context/test_formulas.py"),
        mutants=(
            Mutant("and number >= 0)", "and number >= -9)", "a negative setting"),
            Mutant("for event in EVENTS)) > 1:", "for event in EVENTS)) > 2:", "rates above one"),
            Mutant("and bool(turns)", "", "the first turn counts as cold"),
            Mutant(
                "[*kept.messages, request.reply] if caches_replies else kept.messages",
                "[*kept.messages, request.reply]",
                "every engine keeps its replies",
            ),
            Mutant("policy = make() if stateless else policy", "policy = policy", "nobody forgets"),
            Mutant("for turn in turns) / tokens if", "for turn in turns) / len(turns) if", "hits by turn"),
            Mutant(
                "(draw := draw - getattr(self._settings, event)) < 0",
                "draw < getattr(self._settings, event)",
                "only the first rate counts",
            ),
            Mutant("self.path.pop()\n", "pass\n", "a regeneration after the reply"),
            Mutant("time_s += user.gap_s() if number else 0.0", "time_s += user.gap_s()", "a chat that starts late"),
            Mutant("if idle < settings.idle_share:", "if idle > settings.idle_share:", "idle the other way round"),
            Mutant("- settings.gap_sigma**2 / 2", "", "lognormal gaps longer than asked for"),
            Mutant("expovariate(1 / settings.gap_s)", "expovariate(settings.gap_s)", "gaps the other way round"),
            Mutant("len(self.path) - 2 * depth", "len(self.path) - 4 * depth", "twice as far back"),
            Mutant("del self.path[where : where + 2]", "del self.path[where : where + 1]", "half a turn is deleted"),
            Mutant("self._left.append(list(self.path))", "pass", "branches cannot be returned to"),
            Mutant(
                "self.path, self._left[other] = self._left[other], self.path",
                "self.path = self._left[other]",
                "the branch left is lost",
            ),
        ),
    ),
    Group(
        file="kvtier/policy/lru.py",
        tests=(
            "tests/policy/test_lru.py",
            "tests/test_placement_aging.py",
        ),
        mutants=(
            Mutant(
                "for key in reversed(keys):\n            order[key] = None",
                "for key in keys:\n            order[key] = None",
                "heads leave before tails",
            ),
            Mutant(
                "for key in reversed(keys):\n            if key",
                "for key in keys:\n            if key",
                "a touched head is older than its tail",
            ),
            Mutant("elif self._take_old(key):", "else:", "touching an absent name takes it up"),
            Mutant(
                "order.move_to_end(key)\n            return",
                "pass\n            return",
                "FIFO: a use counts for nothing",
            ),
            Mutant("order.move_to_end(key)\n            elif", "pass\n            elif", "FIFO after a restart"),
            Mutant(
                "in filter(order.__contains__, reversed(keys))", "in reversed(keys)", "touching an absent name raises"
            ),
            Mutant(
                "filter(order.__contains__, reversed(keys))",
                "filter(order.__contains__, keys)",
                "its head leaves first",
            ),
            Mutant("self._order:\n                del", "keys:\n                del", "removing an absent name raises"),
            Mutant("and not len(self):", ":", "a restart's batch forgets what is on the shelf"),
            Mutant("self._passed[key] = None", "self._order[key] = None", "a refused block becomes the newest"),
            Mutant(
                "yield from sweep(self._passed, evictable)", "yield from ()", "what was refused once stays for ever"
            ),
            Mutant("del self._passed[key]", "pass", "a removed block is still ordered"),
            Mutant(
                "return self._shelf is not None and self._shelf.take(key)", "return False", "the shelf is not touched"
            ),
            Mutant("if row in self._left:", "if True:", "a touched block leaves as an old one"),
            Mutant("self._left.remove(row)\n        return True", "return True", "a touched block is there twice"),
            Mutant("        self.touch(keys)\n", "        pass\n", "a prompt's tail stays younger than its head"),
            Mutant(
                "if not self._passed and self._shelf is None:", "if self._shelf is None:", "who was refused stays old"
            ),
            Mutant(
                "if not self._passed and self._shelf is None:", "if not self._passed:", "a use of the shelf is missed"
            ),
        ),
    ),
    Group(
        file="kvtier/policy/sweeping.py",
        tests=(
            "tests/policy/test_lru.py",
            "tests/policy/test_fifo.py",
            "tests/policy/test_wtinylfu.py",
            "tests/policy/test_s3fifo.py",
            "tests/test_reconsidering.py",
        ),
        mutants=(
            Mutant("            if evictable(key):", "            if evictable(key) or True:", "nobody is asked"),
            Mutant("del queue[key]", "pass", "a victim is still held"),
            Mutant("num_refused += 1", "num_refused += 2", "a block after a refused one is left out"),
            Mutant("num_asked += len(batch)", "num_refused += len(batch)", "a long sweep leaves blocks out"),
            Mutant("if key in queue:", "if True:", "a walk leaves out who comes after one that left"),
            Mutant("num_left += 1", "num_left += 2", "a walk leaves out who comes after one that stays"),
            Mutant("num_given += len(batch)", "num_left += len(batch)", "a walk leaves names out"),
            Mutant(
                "if not batch:\n            yield None", "if not batch:\n            return", "nobody may come later"
            ),
            Mutant("self._waiting.add(key)", "self._free[key] = None", "a head is asked about in every sweep"),
            Mutant(
                "            self._waiting.remove(key)\n            self._free", "            self._free", "there twice"
            ),
            Mutant(
                "if key in self._waiting:\n            self._waiting.remove(key)\n            self",
                "if True:\n            self",
                "a stranger is freed",
            ),
            Mutant("self._free[key] = None", "pass", "who is freed is lost"),
            Mutant("self._free.popitem(last=False)[0]", "self._free.popitem()[0]", "who was freed last is given first"),
            Mutant("self._refused.append(key)", "self._free[key] = None", "a refused block is asked about without end"),
            Mutant("self._free.update(dict.fromkeys(self._refused))", "pass", "a refused block never leaves"),
            Mutant("        self._refused.clear()\n", "", "who was refused once is there for ever"),
            Mutant("            del self._free[key]\n", "            pass\n", "who is removed is given all the same"),
            Mutant(
                "            self._waiting.remove(key)\n        elif",
                "            pass\n        elif",
                "who is removed waits",
            ),
            Mutant("len(self._waiting) + len(self._free)", "len(self._waiting)", "who is free is not counted"),
        ),
    ),
    Group(
        file="kvtier/policy/fifo.py",
        tests=(
            "tests/policy/test_fifo.py",
            "tests/test_reconsidering.py",
        ),
        mutants=(
            Mutant("for key in reversed(keys):", "for key in keys:", "heads leave before tails"),
            Mutant(
                "if key in self._order:\n                del",
                "if True:\n                del",
                "removing an absent name raises",
            ),
            Mutant("return len(self._order) + len(self._aside)", "return len(self._order)", "who waits is not counted"),
            Mutant("self._aside.discard(key)", "pass", "who waits cannot be removed"),
            Mutant("self._aside.free(key)", "pass", "who waits never leaves"),
            Mutant(
                "if not was_aside and leaves is not False:", "if not was_aside and leaves:", "who waits is there twice"
            ),
            Mutant(
                "if not was_aside and leaves is not False:", "if leaves is not False:", "who was freed cannot leave"
            ),
            Mutant("                    aside.put(key)", "                    pass", "who must wait is lost"),
            Mutant(
                "                    aside.refuse(key)", "                    pass", "who was freed and refused is lost"
            ),
            Mutant("            aside.end()", "            pass", "who was freed and refused never leaves"),
        ),
    ),
    Group(
        file="kvtier/policy/lfu.py",
        tests=("tests/policy/test_lfu.py",),
        mutants=(
            Mutant("for key in reversed(keys):\n            uses", "for key in keys:\n            uses", "heads first"),
            Mutant("for key in reversed(keys):\n            num", "for key in keys:\n            num", "heads first"),
            Mutant("uses[key] = 1", "uses[key] = 2", "a new block has been used twice"),
            Mutant("uses[key] = num + 1", "uses[key] = num", "a use counts for nothing the next time"),
            Mutant(
                "if num is None:\n                continue", "num = num or 1", "touching an absent name takes it up"
            ),
            Mutant("if num != last:", "if num > last:", "a block used less than the one before it is lost"),
            Mutant(
                "self._discard_empty(last)\n                old",
                "old",
                "a bucket is kept for every number of uses there was",
            ),
            Mutant(
                "uses[key] = num + 1\n        self._discard_empty(last)", "uses[key] = num + 1", "empty buckets stay"
            ),
            Mutant(
                "del self._buckets[num][key]\n                self._discard", "self._discard", "a removed block leaves"
            ),
            Mutant("for num in sorted(self._buckets):", "for num in list(self._buckets):", "the most used leave first"),
            Mutant("if num > 1:", "if num > 2:", "blocks used twice never leave"),
            Mutant("yield from self._sweep(1, evictable)", "pass", "blocks used once never leave"),
            Mutant("del uses[key]", "pass", "a victim is still counted"),
            Mutant("if not bucket:\n                del", "if False:\n                del", "empty buckets are kept"),
            Mutant(
                "if not self._buckets[num]:\n            del",
                "if self._buckets[num]:\n            del",
                "names are lost",
            ),
        ),
    ),
    Group(
        file="kvtier/policy/sieve.py",
        tests=(
            "tests/policy/test_sieve.py",
            "tests/test_reconsidering.py",
        ),
        mutants=(
            Mutant("for key in reversed(keys):", "for key in keys:", "heads leave before tails"),
            Mutant("self._used[key] = False", "self._used[key] = True", "a new block counts as used"),
            Mutant(
                "if key in used:\n                used", "if True:\n                used", "absent names are taken up"
            ),
            Mutant("used[key] = True", "pass", "FIFO: a use counts for nothing"),
            Mutant(
                "if self._used.pop(key, None) is None:", "if not self._used.pop(key, None):", "unused ones stay queued"
            ),
            Mutant("if key in self._passed:\n                del", "if False:\n                del", "removing raises"),
            Mutant(
                "del self._ahead[key]\n                if not self._ahead:",
                "del self._ahead[key]\n                if False:",
                "a hand with nothing ahead",
            ),
            Mutant(
                "if used[key] or key in refused:",
                "if key in refused:",
                "a used block leaves as if it were not",
            ),
            Mutant("used[key] or key in refused", "used[key]", "a refused block is asked about again"),
            Mutant("refused.add(key)", "pass", "a sweep without end"),
            Mutant("del used[key]", "pass", "a victim is still counted"),
            Mutant(
                "used[key] = False\n                    self._passed[key] = None",
                "used[key] = False\n                    self._ahead[key] = None",
                "CLOCK",
            ),
            Mutant(
                "if not self._ahead:\n                    self._turn()\n                if leaves:",
                "if not self._ahead and not leaves:\n                    self._turn()\n                if leaves:",
                "a sweep closed at the newest block leaves nothing ahead of the hand",
            ),
            Mutant("popitem(last=False)", "popitem()", "the hand walks from new to old"),
            Mutant("elif not self._aside.discard(key):", "else:", "who waits cannot be removed"),
            Mutant("self._aside.free(key)", "pass", "who waits never leaves"),
            Mutant("                    aside.put(key)", "                    pass", "who must wait is lost"),
            Mutant(
                "                    aside.refuse(key)", "                    pass", "who was freed and refused is lost"
            ),
            Mutant("            aside.end()", "            pass", "who was freed and refused never leaves"),
        ),
    ),
    Group(
        file="kvtier/policy/s3fifo.py",
        tests=(
            "tests/policy/test_s3fifo.py",
            "tests/test_reconsidering.py",
        ),
        mutants=(
            Mutant("max(1, capacity_blocks // 10)", "capacity_blocks // 10", "no block on trial in a small tier"),
            Mutant("capacity_blocks - self._small_blocks", "capacity_blocks", "a main queue that is never full"),
            Mutant("capacity_blocks * 9 // 10", "capacity_blocks", "more names are remembered than said"),
            Mutant("_MOST_USES = 3", "_MOST_USES = 4", "uses are counted beyond three"),
            Mutant("_USES_TO_STAY = 2", "_USES_TO_STAY = 1", "one use is enough to stay"),
            Mutant("for key in reversed(keys):", "for key in keys:", "heads leave before tails"),
            Mutant("overflows and len(small)", "len(small)", "new blocks pass as proven"),
            Mutant(
                "overflows = self._ghost, not self._has_evicted", "overflows = self._ghost, False", "trials before need"
            ),
            Mutant(
                "del returning[key]\n                main",
                "del returning[key]\n                small",
                "no second chance",
            ),
            Mutant(
                "if key in returning:\n                del returning[key]",
                "if key in returning:\n                pass",
                "kept for ever",
            ),
            Mutant("ghost.pop(key, None)", "pass", "a held name is remembered as one that left"),
            Mutant("if num < _MOST_USES:", "if num < 1:", "uses are counted to one"),
            Mutant("del ghost[key]\n                returning", "returning", "the ghost keeps who came back"),
            Mutant("while len(returning) > self._ghost_blocks:", "while False:", "names that never come pile up"),
            Mutant("self._small if key in self._small else self._main", "self._main", "removing raises"),
            Mutant(
                "len(self._main_aside) > self._main_blocks",
                "len(self._main_aside) >= self._main_blocks",
                "trials come second",
            ),
            Mutant("(unused, failed, unused)", "(unused, failed)", "who passed its trial in a sweep is left out"),
            Mutant("else (failed, unused)", "else (failed,)", "the main queue never gives a victim"),
            Mutant("self._has_evicted = True", "pass", "new blocks pass as proven for ever"),
            Mutant("del self._uses[victim]", "pass", "a victim is still counted"),
            Mutant("uses[key] = 0\n                main", "main", "uses on trial count in the main queue"),
            Mutant(
                "main[key] = None\n            elif leaves:",
                "pass\n            elif leaves:",
                "who passed its trial is lost",
            ),
            Mutant("ghost[key] = None", "pass", "who failed is forgotten"),
            Mutant("ghost.popitem(last=False)", "ghost.popitem()", "the ghost forgets the newest"),
            Mutant("uses[key] -= 1", "uses[key] = 0", "three uses are as good as one"),
            Mutant("main.move_to_end(key)", "num_refused += 1", "a used block keeps its place and is passed over"),
            Mutant("islice(main, num_refused, 2", "islice(main, 0, 2", "what was refused is asked about again"),
            Mutant(
                "len(self._main) + len(self._main_aside)", "len(self._main)", "who waits does not fill the main queue"
            ),
            Mutant("self._small_aside.free(key)", "pass", "who waits on trial never leaves"),
            Mutant("self._main_aside.free(key)", "pass", "who waits in the main queue never leaves"),
            Mutant("self._take_back(key, num + 1)", "pass", "a use of who waits counts for nothing"),
            Mutant(
                "if self._main_aside.discard(key):\n                self",
                "if False:\n                self",
                "a use of who waits counts for nothing",
            ),
            Mutant(
                "elif self._small_aside.discard(key):", "elif False:", "who passes while it waits is on trial for ever"
            ),
            Mutant("self._small_aside.discard(key) or ", "", "who waits on trial cannot be removed"),
            Mutant(" or self._main_aside.discard(key)", "", "who waits in the main queue cannot be removed"),
            Mutant("            self._small_aside.end()", "            pass", "who was refused on trial never leaves"),
            Mutant(
                "            self._main_aside.end()",
                "            pass",
                "who was refused in the main queue never leaves",
            ),
            Mutant(
                "_failed(key)\n                yield key\n            elif leaves is None:",
                "_failed(key)\n                yield key\n            elif False:",
                "who waits on trial is lost",
            ),
            Mutant(
                "                aside.refuse(key)\n            else:",
                "                pass\n            else:",
                "who was freed and refused is lost",
            ),
        ),
    ),
    Group(
        file="kvtier/policy/arc.py",
        tests=("tests/policy/test_arc.py",),
        mutants=(
            Mutant(
                "for key in reversed(keys):\n            if key in ret",
                "for key in keys:\n            if key in ret",
                "heads first",
            ),
            Mutant(
                "for key in reversed(keys):\n            if key in again",
                "for key in keys:\n            if key in again",
                "heads first",
            ),
            Mutant("if key in returning:", "if False:", "who comes back starts anew"),
            Mutant("del returning[key]", "pass", "a name once asked for again is proven for ever"),
            Mutant("self._left_once.pop(key, None)", "pass", "a held name is remembered as one that left"),
            Mutant("renew(key)", "pass", "recency plays no part in the second list"),
            Mutant(
                "elif key in once:\n                del once[key]\n                again",
                "elif key in once:\n                del once[key]\n                once",
                "LRU",
            ),
            Mutant("self._aim(max(len(left_again) / len(left_once), 1))", "self._aim(1)", "a step that is always one"),
            Mutant(
                "self._aim(-max(len(left_once) / len(left_again), 1))", "self._aim(-1)", "a step that is always one"
            ),
            Mutant("self._aim(-max", "self._aim(max", "the target only grows"),
            Mutant("del left_once[key]\n", "pass\n", "a name that came back is remembered as one that left"),
            Mutant("del left_again[key]\n", "pass\n", "a name that came back is remembered as one that left"),
            Mutant("self._asked_for_left_again = True", "pass", "a tie goes to the second list"),
            Mutant("self._asked_for_left_again = False\n        for", "for", "a tie goes to the first list for ever"),
            Mutant(
                "while len(self._returning) > self._capacity_blocks:", "while False:", "names that never come pile up"
            ),
            Mutant(
                "if key in self._once:\n                del",
                "if False:\n                del",
                "a removed block is still held",
            ),
            Mutant("self._again.pop(key, None)", "pass", "a removed block is still held"),
            Mutant("left[victim] = None", "pass", "nobody is remembered"),
            Mutant(
                "sweep(self._again, evictable), self._left_again",
                "sweep(self._again, evictable), self._left_once",
                "one memory",
            ),
            Mutant("else (again, once)", "else (again,)", "a full sweep leaves blocks behind"),
            Mutant("num > self._target or", "num >= self._target or", "a tie goes to the first list"),
            Mutant(
                "min(max(self._target + by, 0), self._capacity_blocks)",
                "max(self._target + by, 0)",
                "beyond the capacity",
            ),
            Mutant("max(self._target + by, 0)", "(self._target + by)", "a target below nothing"),
            Mutant(
                "len(self._once) + len(left_once) > capacity", "len(left_once) > capacity", "the first pair is too long"
            ),
            Mutant("> 2 * capacity", "> 3 * capacity", "the four lists are too long"),
            Mutant("left_once.popitem(last=False)", "left_once.popitem()", "the newest names are forgotten"),
            Mutant("left_again.popitem(last=False)", "left_again.popitem()", "the newest names are forgotten"),
        ),
    ),
    Group(
        file="kvtier/policy/wtinylfu.py",
        tests=("tests/policy/test_wtinylfu.py",),
        mutants=(
            Mutant("max(1, capacity_blocks // 100)", "capacity_blocks // 100", "a small tier has no window"),
            Mutant("* 4 // 5", "* 3 // 5", "too few are protected"),
            Mutant("_MOST_USES = 15", "_MOST_USES = 16", "counts go beyond fifteen"),
            Mutant("_USES_PER_BLOCK = 10", "_USES_PER_BLOCK = 11", "counts are halved late"),
            Mutant(
                "for key in reversed(keys):\n            window", "for key in keys:\n            window", "heads first"
            ),
            Mutant(
                "for key in reversed(keys):\n            if key in prot",
                "for key in keys:\n            if key in prot",
                "heads first",
            ),
            Mutant("if len(window) > self._window_blocks:", "if False:", "the window is the whole cache"),
            Mutant("self._count(keys)", "pass", "nothing is counted"),
            Mutant("renew(key)", "pass", "recency plays no part among the protected"),
            Mutant("protected[key] = None\n", "probation[key] = None\n", "nobody is protected"),
            Mutant("if len(protected) > self._protected_blocks:", "if False:", "all are protected"),
            Mutant("window.move_to_end(key)", "pass", "recency plays no part in the window"),
            Mutant(
                "(self._protected, self._probation, self._window)", "(self._protected, self._probation)", "still held"
            ),
            Mutant("or num >= uses(victim, 0)", "or num > uses(victim, 0)", "heads leave first"),
            Mutant("or num >= uses(victim, 0)", "or True", "a scan drives out what is asked for often"),
            Mutant("num >= _MOST_USES or ", "", "of two that are asked for always the newcomer leaves"),
            Mutant("_MOST_USES if candidate", "0 if candidate", "what is asked for stays although nobody contends"),
            Mutant("victim not in waiting and", "", "a head on probation is asked about in each sweep"),
            Mutant("candidate not in waiting and", "", "a head in the window is asked about in each sweep"),
            Mutant("waiting.add(key)", "pass", "a head is asked about in each sweep"),
            Mutant("self._waiting.discard(key)", "pass", "a head never leaves"),
            Mutant("self._waiting.difference_update(keys)", "pass", "who comes back after it waited never leaves"),
            Mutant("probation if victim in probation else protected", "probation", "a protected victim raises"),
            Mutant("del window[candidate]\n                    probation", "probation", "a winner is there twice"),
            Mutant("probation[candidate] = None", "pass", "a winner is lost"),
            Mutant("self._uses.update(keys)", "self._uses.update(dict.fromkeys(keys, 0))", "no use is counted"),
            Mutant("min(num, _MOST_USES) >> 1", "num >> 1", "uses above fifteen are remembered"),
            Mutant("self._uses_left -= len(keys)", "self._uses_left -= 1", "counts are halved late"),
            Mutant("min(num, _MOST_USES) >> 1", "min(num, _MOST_USES)", "counts are never halved"),
            Mutant("if num > 1}", "}", "names that were asked for once are remembered for ever"),
            Mutant("self._uses_left = self._sample\n", "pass\n", "counts are halved at every request"),
            Mutant("yield next(protected) if key is None else key", "yield key", "protected blocks never leave"),
        ),
    ),
    Group(
        file="kvtier/policy/registry.py",
        tests=("tests/policy/test_registry.py",),
        mutants=(
            Mutant("if make is None:", "if False:", "an unknown policy is a crash"),
            Mutant("{', '.join(POLICIES)}", "", "the known policies are not named"),
            Mutant('"arc": lambda setting: ARC', '"arc": lambda setting: S3FIFO', "ARC is another policy"),
        ),
    ),
    Group(
        file="kvtier/policy/belady.py",
        tests=("tests/policy/test_belady.py",),
        mutants=(
            Mutant(
                "heapq.heappush(self._latest, -due)", "heapq.heappush(self._latest, due)", "the soonest leaves first"
            ),
            Mutant("if self.runs and self._end_depth < depth:", "if False:", "a head leaves before its new tail"),
            Mutant("self.runs.appendleft(run)", "self.runs.append(run)", "a head leaves before its old tail"),
            Mutant("self._end_depth = end_depth", "pass", "a head leaves before its tail"),
            Mutant(
                "if self._due.get(key) != due or key in refused:", "if key not in self._due:", "asks about one twice"
            ),
            Mutant(
                "self._due.update(dict.fromkeys(run, due))", "[self._due.setdefault(key, due) for key in run]", "stale"
            ),
            Mutant("mine := [key for key in run if key in held]", "mine := list(run)", "a touch takes up absent names"),
            Mutant("refused[key] = due", "pass", "a refused block is lost"),
            Mutant("reversed(refused.items())", "refused.items()", "refused blocks change places"),
            Mutant("if self._entries > 2 * len(held) + 1000:", "if False:", "grows with the trace"),
            Mutant("members.difference_update(kept)", "pass", "what is filed twice is never forgotten"),
            Mutant("heapq.heapify(self._latest)", "self._latest.reverse()", "the order is lost at a clean-up"),
            Mutant("if due >= self._never:", "if False:", "what is never used again is written"),
            Mutant("self._policy.num_later(due, wanted - room)", "wanted", "nothing stays out"),
            Mutant("-self._latest[0] > due and", "-self._latest[0] >= due and", "one of the same time makes room"),
            Mutant("found.add(key)", "found.add(object())", "a victim makes room twice"),
            Mutant(
                "            heapq.heappush(self._latest, -later)", "            pass", "who was counted never leaves"
            ),
            Mutant("min(wanted, max(admitted, room + later))", "min(wanted, room + later)", "fewer than fit"),
            Mutant("wanted = admitted + len(run)", "wanted = len(run)", "a victim makes room for each part"),
            Mutant("if self.next_use(keys[-1]) != due:", "if True:", "looks at each part by halves"),
            Mutant("lo=start + 1, key", "lo=start + 2, key", "two parts are taken for one"),
        ),
    ),
    Group(
        file="kvtier/policy/gdsf.py",
        tests=("tests/policy/test_gdsf.py",),
        mutants=(
            Mutant("best = max(best, cost)", "best = cost", "a new head leaves before its tail"),
            Mutant("- (depth << _TURN_BITS)", "", "of equals a head may leave first"),
            Mutant("self._level = level = self._floor", "level = self._level", "what was used often stays for ever"),
            Mutant("if arriving else 0.0", "if False else 0.0", "a head leaves before the tail that is coming"),
            Mutant("uses = standing.uses + 1", "uses = standing.uses", "uses do not count"),
            Mutant("value = uses * standing.cost", "value = uses", "cost does not count"),
            Mutant("if reach > standing.worth:", "if reach:", "a short prompt lowers a head"),
            Mutant("self._floor = worth", "pass", "the floor never rises"),
            Mutant("if standing is None or standing.turn != turn:", "if standing is None:", "a former self leaves"),
            Mutant("if standing.worth > worth:", "if False:", "uses do not count"),
            Mutant("refused.append(heapq.heappop(heap))", "heapq.heappop(heap)", "a refused block is lost"),
            Mutant("self._num_inserted += len(keys)", "pass", "blocks of equal worth change places"),
            Mutant("if len(self._heap) > 2 * len(self._held) + 1000:", "if False:", "grows with every insertion"),
            Mutant("self._heap, self._level, 0.0", "self._heap, self._floor, 0.0", "a tail above its head"),
            Mutant(
                "standing.worth, standing.turn, key) for", "1e9, standing.turn, key) for", "order lost at a clean-up"
            ),
        ),
    ),
    Group(
        file="kvtier/policy/ttl.py",
        tests=("tests/policy/test_ttl.py",),
        mutants=(
            Mutant("if not ttl_s > 0:", "if ttl_s < 0:", "no time to live"),
            Mutant("if self._refresh:", "if True:", "a use begins the time anew"),
            Mutant(
                "since.update(dict.fromkeys(filter(since.__contains__, keys), self._clock()))",
                "pass",
                "a use changes nothing",
            ),
            Mutant("filter(since.__contains__, keys)", "keys", "what is not held has a time"),
            Mutant("self._times[0] <= last", "self._times[0] < last", "lapses late"),
            Mutant("by_time[since].append(key)", "by_time[time_s].append(key)", "one used since lapses"),
            Mutant("by_time.pop(None, None)", "pass", "what is gone has a time"),
            Mutant("self._file(since, later)", "pass", "one used since never lapses"),
            Mutant(
                "sorted(dict.fromkeys(due), key=self._depth, reverse=True)", "dict.fromkeys(due)", "a head lapses first"
            ),
            Mutant("sorted(dict.fromkeys(due)", "sorted(due", "named twice"),
            Mutant("self._file(time_s, due)", "pass", "named once, and never again"),
            Mutant("del self._since[victim]", "pass", "a victim lapses"),
            Mutant("self.inner.touch(keys)", "pass", "the inner policy sees no use"),
            Mutant("self.inner.remove(keys)", "pass", "the inner policy orders what is gone"),
            Mutant("if self._entries > 2 * len(self._since) + 1000:", "if False:", "grows with every insertion"),
            Mutant("self._file(time_s, [key])", "pass", "who is held at a clean-up never lapses"),
            Mutant("self._entries -= len(names)", "pass", "cleans up too often"),
            Mutant("refresh, setting.depth)", "refresh)", "depth is not passed on"),
            Mutant("self._arranging.arrange(keys)", "pass", "an inner order is not arranged"),
            Mutant("self._reconsidering.reconsider(key)", "pass", "who waits in the inner policy never leaves"),
            Mutant("inner if isinstance(inner, Arranging) else None", "inner", "an inner policy without order raises"),
            Mutant(
                "inner if isinstance(inner, Reconsidering) else None",
                "inner",
                "an inner policy that asks always raises",
            ),
        ),
    ),
    Group(
        file="kvtier/policy/admission.py",
        tests=("tests/policy/test_admission.py",),
        mutants=(
            Mutant("(key, key in self._seen_twice)", "(key, True)", "a first touch lets in"),
            Mutant(
                "self._seen_twice.get(key, default=False)", "self._seen_twice.get(key, default=True)", "unknown is in"
            ),
            Mutant("key in self._young or key in self._old", "key in self._young", "forgets the old generation"),
            Mutant("self._young.get(key, self._old.get(key, default))", "self._young.get(key, default)", "the same"),
            Mutant("if len(self._young) >= self._most_young:", "if False:", "remembers without end"),
            Mutant("max_names // 2", "max_names", "remembers twice as much as it may"),
            Mutant("is_long = len(keys) >= self._min_blocks", "is_long = len(keys) > self._min_blocks", "one too long"),
            Mutant("self._long.get(key, default=True)", "self._long.get(key, default=False)", "the forgotten stay out"),
            Mutant("if keys[-1] == self._end:", "if False:", "a new block has no depth yet"),
            Mutant("self._is_worth_it(self._length)", "self._is_worth_it(len(keys))", "the held part does not count"),
            Mutant("self._depth(keys[-1]) + 1)", "self._depth(keys[-1]))", "one block short"),
            Mutant("if self._num_children(keys[-1]) or", "if", "a head stays out that is needed"),
            Mutant("self._latency_s + length * self._load_s <", "length * self._load_s <", "latency is free"),
            Mutant("self._load_s < self._totals_s", "self._load_s <= self._totals_s", "as slow is good enough"),
            Mutant("if not self._most >= 1:", "if self._most < 1:", "no number is a budget"),
            Mutant("self._left = min(self._most, ", "self._left = max(0, ", "saves up for ever"),
            Mutant("self._left -= admitted", "pass", "the budget is never used"),
            Mutant("if now_s > self._since_s:", "if True:", "a clock that steps back and forth gives twice"),
            Mutant("self._since_s = now_s", "pass", "time is given again and again"),
            Mutant("if keys:", "if False:", "the last prompt is not known"),
        ),
    ),
    Group(
        file="kvtier/sim/future.py",
        tests=("tests/sim/test_future.py",),
        mutants=(
            Mutant("self._next[blocks] = number", "pass", "nothing is ever used again"),
            Mutant("self._now += 1", "pass", "the future stands still"),
            Mutant("self.never - 1 - self._now", "self._now", "the future runs backwards"),
            Mutant("np.diff(numbers) != step", "np.diff(numbers) < step", "what jumps ahead is one run"),
            Mutant("_begins(ids, 1)", "np.arange(len(ids))", "as large as the trace"),
            Mutant("_begins(uses, 0)", "np.arange(len(uses))", "the same"),
            Mutant("ids += np.arange(len(ids))", "pass", "a run is its first block again and again"),
            Mutant("np.zeros(min(1, len(numbers)), np.int64)", "np.zeros(1, np.int64)", "no prompt may be empty"),
            Mutant("(starts + lengths).max(initial=0)", "starts.max(initial=0)", "the last block has no place"),
        ),
    ),
    Group(
        file="kvtier/policy/hazard.py",
        tests=("tests/policy/test_hazard.py",),
        mutants=(
            Mutant(
                "for run in reversed(self._walk(keys)):",
                "for run in self._walk(keys):",
                "a head is older than its tail",
            ),
            Mutant("for run in reversed(used):", "for run in used:", "arranged the wrong way round"),
            Mutant("and run.since == self._now:", "and True:", "arranging moves what was not used"),
            Mutant("run.uses += 1", "pass", "uses do not count"),
            Mutant("if run.since == since:", "if True:", "one used since waits for two"),
            Mutant(
                "            self._wait(run, 0)\n            if", "            if", "waiting does not count after a use"
            ),
            Mutant("self._broken[run.names[run.num_held]] = run", "pass", "a cut run is not taken up again"),
            Mutant("run.is_forgotten", "False", "what was forgotten comes back"),
            Mutant("passed.append(run)", "pass", "what was asked about is lost"),
            Mutant("for run in reversed(passed):", "for run in passed:", "refused runs change places"),
            Mutant("self._file(run, front=True)", "self._file(run)", "refused runs are the youngest"),
            Mutant("key not in refused and self._may_go", "self._may_go", "asks about one twice"),
            Mutant(
                "heapq.heapreplace(oldest, self._oldest(kind))",
                "heapq.heappop(oldest)",
                "one run of a kind and no more",
            ),
            Mutant("min(run.num_held, at), run.uses", "min(run.num_held, at), 1", "a split head loses its uses"),
            Mutant("if run.num_held > at:", "if run.num_held >= at:", "a run of nothing stands in line"),
            Mutant("self._num_waiting -= at", "pass", "books do not balance after a split"),
            Mutant(
                "for age in range(_age_class(self._now - run.since) + 1):", "for age in ():", "waited less than nothing"
            ),
            Mutant("self._runs[run.names[0]] = run\n        self._file", "self._file", "a tail cannot be found"),
            Mutant(
                "if key in refused:\n                return",
                "if False:\n                return",
                "asks about one twice",
            ),
            Mutant("while self._num_gone > self._max_names_gone:", "while False:", "remembers without end"),
            Mutant("run.since = -1\n            if", "if", "what was forgotten comes back"),
            Mutant("if self._num_waiting > 2 * len(self._held) + 1000:", "if False:", "grows with every removal"),
            Mutant("and key not in seen]", "]", "one name stands in two runs"),
            Mutant("min(self.uses, _NUM_KINDS) - 1", "0", "all are of one kind"),
            Mutant("keys[end - 1] == self.names[-1]", "True", "a prompt that turns off uses the whole run"),
            Mutant("1 + bisect_left(", "bisect_left(", "a run is split one block too early"),
            Mutant("self._waited[kind][age] -= rest", "pass", "waits on after its use"),
            Mutant("self._num_uses[kind][age] += 1", "pass", "nothing is learnt from uses"),
            Mutant("self._all_uses[age] += 1", "pass", "nothing is learnt of ages"),
            Mutant("self._waited[kind][age] += _WIDTHS[age]", "pass", "waiting costs nothing"),
            Mutant("self._num_uses[: kind + 1]", "self._num_uses[kind : kind + 1]", "a head is rated below its tail"),
            Mutant("[2, *(2**age", "[1, *(2**age", "the first class is one request short"),
            Mutant("(2 if age else 1)", "1", "a class of ages is over when it begins"),
            Mutant("self._begin(fresh)\n                fresh = []", "fresh = []", "what came between is lost"),
        ),
    ),
    Group(
        file="kvtier/index.py",
        tests=(
            "tests/test_index.py",
            "tests/test_placement.py",
            "tests/test_placement_aging.py",
            "tests/test_placement_expiry.py",
            "tests/test_reconsidering.py",
            "tests/test_intake.py",
            "tests/test_resting.py",
            "tests/test_placement_machine.py",
            "tests/test_intake_machine.py",
        ),
        mutants=(
            Mutant("(self.tiers & -self.tiers).bit_length() - 1", "self.tiers.bit_length() - 1", "reads the slowest"),
            Mutant("stack.extend(node.children)", "pass", "descendants outlive their parent"),
            Mutant(
                "if node is not None and not node.dead:", "if node is not None:", "a dead block counts as in flight"
            ),
            Mutant("keys[: len(tiers)]", "keys", "a match that is longer than what is held"),
            Mutant("parent.adopt(node)", "pass", "every block is a leaf"),
            Mutant("assert parent is None or not parent.dead", "pass", "a block under a dead parent"),
            Mutant("parent.disown(node)", "pass", "a parent never becomes a leaf again"),
            Mutant("node.dead = True", "pass", "what was given up is still there"),
            Mutant(
                "if not node.moves:\n            self.sweep_out",
                "if True:\n            self.sweep_out",
                "a late move hits a new block",
            ),
            Mutant("self.nodes.get(node.key) is node", "node.key in self.nodes", "a former self unlists the new one"),
            Mutant("node.leases += 1", "node.leases = 1", "the first of two releases frees the block"),
            Mutant("node.leases -= 1", "node.leases = 0", "one release frees everybody's block"),
            Mutant("if lease.released:", "if False:", "a second release counts"),
            Mutant("self.leases.discard(lease)", "pass", "a released lease is reported as leaked"),
            Mutant("lease.deadline <= now", "lease.deadline < now", "a lease outlives its deadline"),
            Mutant("self.nodes.values() if not node.dead", "self.nodes.values()", "the dead among the living"),
            Mutant("{self.below: None, child: None}", "{child: None}", "a second child hides the first"),
            Mutant("self.below[child] = None", "pass", "a third child is nobody's"),
            Mutant("del self.below[child]", "pass", "a parent of several never becomes a leaf again"),
            Mutant("not (self.below or self.asleep)", "not self.below", "a parent leaves under sleepers"),
            Mutant("node.asleep = num_children", "pass", "children asleep are not counted"),
            Mutant("node.parent.asleep -= 1", "pass", "a parent of one that woke never becomes a leaf"),
            Mutant("node.tiers = 1 << resting.tier", "node.tiers = 1", "a block wakes in another tier"),
            Mutant("if node.asleep and self", "if not node.asleep and self", "descendants asleep outlive their parent"),
            Mutant("if not resting:", "if False:", "what nobody needs is kept for ever"),
            Mutant("if not there:", "if there is None:", "an arriving block is served"),
            Mutant("held = 1 << resting.tier", "held = 1", "a block asleep is read from another tier"),
            Mutant("there = held & readable", "there = held", "what cannot be read is served"),
            Mutant(
                '"unavailable" if held else "in_flight"', '"in_flight"', "what cannot be read looks as if it would come"
            ),
            Mutant("0 if there & 1 else", "0 if there & 3 else", "what lies in the second tier is read from the first"),
            Mutant(
                "if self.on_leaf is not None and parent.is_leaf:",
                "if self.on_leaf is not None:",
                "who has a child left is called a leaf",
            ),
            Mutant("self.on_leaf(parent)", "pass", "nobody hears of a leaf"),
            Mutant("self.asleep + (len", "(len", "children asleep do not count"),
            Mutant(
                "len(several) if isinstance(several, dict) else several is not None",
                "several is not None",
                "two children count as one",
            ),
        ),
    ),
    Group(
        file="kvtier/placement.py",
        tests=(
            "tests/test_placement.py",
            "tests/test_placement_aging.py",
            "tests/test_placement_expiry.py",
            "tests/test_reconsidering.py",
            "tests/test_intake.py",
            "tests/test_resting.py",
            "tests/test_placement_machine.py",
            "tests/test_intake_machine.py",
        ),
        mutants=(
            Mutant("[*before, *keys, *hold]", "[*keys, *hold]", "a chain evicts the parent it hangs on"),
            Mutant("*keys, *hold]", "*keys]", "the rest of the prompt makes room for its middle"),
            Mutant("labels[at : at + count], 1 << dst)", "labels[at : at + count])", "an arrival nobody expects"),
            Mutant("labels[end].parent == keys[end - 1]", "True", "a run that is none"),
            Mutant("if quiet and new else 1", "if new else 1", "a stranger is overlooked"),
            Mutant("if count < wanted:", "if False:", "a block behind one that found no place"),
            Mutant("sweep.orders() + new", "new + sweep.orders()", "a place is used before it is free"),
            Mutant("sweep.orders() + up", "up + sweep.orders()", "a place is used before it is free"),
            Mutant("sweep.orders() + down", "down + sweep.orders()", "a place is used before it is free"),
            Mutant("node.fastest <= dst or node.moves", "node.fastest <= dst", "two moves of one block at once"),
            Mutant("node.fastest <= dst or", "node.fastest < dst or", "a block is promoted to where it is"),
            Mutant(
                "up: list[Move] = []\n        with Sweep(self._books, keys)",
                "up: list[Move] = []\n        with Sweep(self._books, [])",
                "a promoted prompt evicts itself",
            ),
            Mutant(
                "down: list[Move] = []\n        with Sweep(self._books, keys)",
                "down: list[Move] = []\n        with Sweep(self._books, [])",
                "a copied child pushes out its parent",
            ),
            Mutant("node.tiers >> last & 1 or node.moves", "node.tiers >> last & 1", "two moves of one block at once"),
            Mutant("for rules in self._rules:", "for rules in self._rules[:1]:", "a hit counts in one tier only"),
            Mutant(
                "(sunk if src is not None and src < dst and not keep else arrived)"
                "[dst].append(node)\n                if",
                "arrived[dst].append(node)\n                if",
                "sunk heads leave before sunk tails",
            ),
            Mutant(
                "(sunk if src is not None and src < dst and not keep else arrived)"
                "[dst].append(node)\n                    in",
                "arrived[dst].append(node)\n                    in",
                "likewise, where others move blocks",
            ),
            Mutant("for node in nodes if node.tiers >> tier & 1", "for node in nodes", "a policy orders the dead"),
            Mutant(
                "                    self._drop_below(node, src)\n            if node.dead",
                "                    pass\n            if node.dead",
                "a promoted block stays below for ever",
            ),
            Mutant(
                "self._drop_below(node, src)\n            follow",
                "pass\n            follow",
                "likewise, where others move blocks",
            ),
            Mutant("not self._rules[src].durable and ", "", "a disk block is deleted when it is used"),
            Mutant("self._used[move.dst] -= 1", "pass", "a failed arrival keeps its place"),
            Mutant(
                "[move.dst] -= 1\n            if move.src is not None and not move.keep:",
                "[move.dst] -= 1\n            if move.src is not None:",
                "a failed copy loses its source",
            ),
            Mutant(
                "if node is None or not node.tiers >> tier & 1:", "if node is None:", "what is not there is dropped"
            ),
            Mutant("self.index.alive(besides=last)", "self.index.alive()", "a flush wakes a whole disk"),
            Mutant("*hold], may_sink=True", "*hold], may_sink=False", "a prompt ends where the fastest tier does"),
            Mutant("demote=demote) as sweep", "demote=True) as sweep", "victims sink though told not to"),
            Mutant("max(0, self._rules[tier].capacity_blocks", "max(-9, self._rules[tier].capacity_blocks", "a debt"),
            Mutant("if not self._books.parent_alive(labels[at]):", "if False:", "a block without its parent"),
            Mutant(
                "elif node is None:\n                    if not self._books",
                "elif node is None or node.dead:\n                    if not self._books",
                "a late move hits the new block",
            ),
            Mutant(
                "if node is None and not quiet and self._intake.claim(keys[at], labels[at]):",
                "if False:",
                "what another process stored is stored again",
            ),
            Mutant(
                "key=lambda node: (node.depth, node.key)",
                "key=lambda node: (-node.depth, node.key)",
                "children before parents",
            ),
            Mutant(
                " and not keep:\n                intake.left(node, src)",
                ":\n                intake.left(node, src)",
                "a copy that stays is not counted",
            ),
            Mutant(
                "if src is not None and not keep:\n                used[src] -= 1",
                "if src is not None:\n                used[src] -= 1",
                "likewise, where nobody else moves blocks",
            ),
            Mutant("used[src] -= 1\n", "pass\n", "a place is never given back"),
            Mutant(
                "if not intake.arrived(node, dst) or node.dead:",
                "if node.dead:",
                "a block taken away as it came is served",
            ),
            Mutant(
                "if not intake.arrived(node, dst) or node.dead:",
                "if not intake.arrived(node, dst):",
                "the dead arrive",
            ),
            Mutant("if dst is not None and node.dead:", "if False:", "likewise, where nobody else moves blocks"),
            Mutant("intake.adopt(key)", "pass", "strangers wait for a parent that is here"),
            Mutant("self._intake.catch_up(node)", "pass", "what was heard during a move is forgotten"),
            Mutant(
                "if node.dead and not node.moves:\n            self",
                "if False:\n            self",
                "what others brought of a block given up stays a stranger",
            ),
            Mutant(
                "self._books.doom(node, tier)\n        return self._books.resolve(node)",
                "self._books.doom(node, tier)\n        return self._books.settle(node)",
                "descendants outlive a damaged block",
            ),
            Mutant(
                "self._rules[tier].capacity_blocks = capacity_blocks",
                "pass",
                "a file that cannot grow is planned as if it could",
            ),
            Mutant("self._rules[tier].takes = takes", "pass", "blocks sink to a tier that cannot take them"),
            Mutant(
                "self.index.readable | mask if readable",
                "self.index.readable if readable",
                "what can be read again stays unavailable",
            ),
            Mutant("else self.index.readable & ~mask", "else self.index.readable", "what cannot be read is served"),
            Mutant(
                "if not self.index.readable >> src & 1 or not sweep",
                "if not sweep",
                "room is made for what cannot be read",
            ),
            Mutant(
                "src < dst and not keep else arrived)[dst].append(node)\n                if",
                "src < dst else arrived)[dst].append(node)\n                if",
                "a copy's tail is younger than its head",
            ),
            Mutant("reversed(victims)", "victims", "who left last is the oldest below"),
            Mutant("if self._intake.is_quiet else", "if True else", "what others do is overlooked"),
            Mutant("elif node.doomed or not node.tiers:", "elif not node.tiers:", "a damaged copy stays"),
            Mutant("elif node.doomed or not node.tiers:", "elif node.doomed:", "what nothing holds stays listed"),
            Mutant("                del nodes[key]\n", "                pass\n", "the dead are never swept out"),
            Mutant("if node.dead and not (node.moves or node.doomed):", "if node.dead and not node.moves:", "doomed"),
            Mutant("            if not node.moves:\n                node.changing = 0\n", "", "changing for ever"),
            Mutant("policy.arrange(keys)", "pass", "a prompt's tail is younger than its head"),
            Mutant("rules.admission.touch(keys)", "pass", "an admission knows no prompt"),
            Mutant("if not keys:  # no prompt", "if False:  # no prompt", "a put without a use counts as a request"),
            Mutant(
                "new = [key for key in chain.keys if self.index.get(key) is None]",
                "new = list(chain.keys)",
                "what is held is asked about",
            ),
            Mutant("chain.keys.index(new[worth])", "worth", "what is held counts as refused"),
            Mutant("keys = keys[: admission.admit(keys)]", "pass", "what is not worth it is copied on insertion"),
            Mutant("node.moves or node.leases or sweep", "node.moves or sweep", "a leased block expires"),
            Mutant("node.moves or node.leases or sweep", "node.leases or sweep", "a block on its way expires"),
            Mutant(
                "stuck.append(node)",
                "moves += self._books.kill(node)",
                "a policy is told of a block in the midst of its sweep",
            ),
            Mutant(
                "any(each.leases for each in self.index.subtree(node))",
                "False",
                "a leased block goes with the one it hangs on",
            ),
            Mutant(
                "            moves += sweep.orders()\n            for",
                "            for",
                "who leaves in time is never moved",
            ),
            Mutant("if isinstance(rules.policy, Expiring)]", "if False]", "nothing expires"),
        ),
    ),
    Group(
        file="kvtier/room.py",
        tests=(
            "tests/test_placement.py",
            "tests/test_placement_aging.py",
            "tests/test_placement_expiry.py",
            "tests/test_reconsidering.py",
            "tests/test_intake.py",
            "tests/test_resting.py",
            "tests/test_placement_machine.py",
            "tests/test_intake_machine.py",
        ),
        mutants=(
            Mutant(
                "zip(reversed(self._drops), reversed(self._copies), strict=True)",
                "zip(self._drops, self._copies, strict=True)",
                "upper tiers move first",
            ),
            Mutant("for moves in (drops, copies)", "for moves in (copies, drops)", "copies before drops"),
            Mutant(
                "if used[tier] < rules.capacity_blocks:", "if used[tier] <= rules.capacity_blocks:", "one over capacity"
            ),
            Mutant("rules.capacity_blocks - books.used[tier])", "rules.capacity_blocks)", "all over capacity"),
            Mutant("max(0, rules.capacity_blocks", "(rules.capacity_blocks", "a tier that shrank owes blocks"),
            Mutant("books.used[tier] += evicted", "pass", "two plans use one place"),
            Mutant("books.used[tier] += free", "pass", "likewise, where there is room"),
            Mutant("islice(victims, count)", "victims", "more leave than have to"),
            Mutant("victims.close()", "pass", "a sweep is left open"),
            Mutant("self._books.used[tier] -= unused", "pass", "a place set aside is never given back"),
            Mutant("if node.leases or node.moves", "if node.moves", "a leased block is evicted"),
            Mutant("node.leases or node.moves or", "node.leases or", "a block in flight is evicted"),
            Mutant(" or others:\n", ":\n", "a block held elsewhere too finds no way out"),
            Mutant("(lies_elsewhere, may_leave)", "(may_leave,)", "lost, though a copy could have gone"),
            Mutant("(lies_elsewhere, may_leave)", "(lies_elsewhere,)", "nothing is ever lost for it"),
            Mutant(" and may_leave(key))", ")", "a leased copy is dropped because there is another"),
            Mutant("self._demote and (admission", "(admission", "room is made below for those who do not sink"),
            Mutant("if node.below or node.asleep:", "if node.asleep:", "a parent before its child"),
            Mutant("if node.below or node.asleep:", "if node.below:", "a parent before a child that is asleep"),
            Mutant("return key not in protected", "return False", "a full store stays full"),
            Mutant("(not may_sink and key in protected)", "False", "a promotion makes room with its own chain"),
            Mutant("return key not in protected", "return True", "a prompt drops its own head"),
            Mutant("if tier == self._last:", "if False:", "below the last"),
            Mutant("if not self._spare[below] and self", "if self", "two blocks leave for one place"),
            Mutant(
                "if not self._sinks[tier] or self._lies_near(node, tier):",
                "if not self._sinks[tier]:",
                "moved to where it is",
            ),
            Mutant("self._spare[tier + 1] -= 1", "pass", "one place below for two victims"),
            Mutant(
                "node.tiers &= ~(1 << tier)\n        self._books.begin",
                "self._books.begin",
                "a block on its way down is served",
            ),
            Mutant(
                "make_move((node.key, tier, tier + 1, False))",
                "make_move((node.key, tier, tier + 1, True))",
                "a victim keeps the place it should free",
            ),
            Mutant(
                "if not self._sinks[tier] or self._lies_near(node, tier):",
                "if self._lies_near(node, tier):",
                "who does not sink sinks",
            ),
            Mutant(
                "worth and self._room_below(tier)",
                "self._room_below(tier) and worth",
                "one leaves for a block that does not come",
            ),
            Mutant("(admission is None or admission.admit([key]) > 0)", "True", "what is not worth it sinks"),
            Mutant("1 << tier, (4 << tier) - 1,", "1 << tier, (2 << tier) - 1,", "a copy in the next tier is none"),
            Mutant("1 << tier, (4 << tier) - 1,", "1 << tier, -1,", "what lies far below does not sink"),
            Mutant("& ~(1 << tier) & (4 << tier) - 1)", "& ~(1 << tier))", "likewise, once it is sent off"),
            Mutant("return None if asks_again else False", "return False", "heads are asked about in every sweep"),
            Mutant("return None if asks_again else False", "return None", "heads of several tiers wait for ever"),
            Mutant("self._books.come_down(node)", "pass", "who falls back on a copy is old there"),
            Mutant(
                "self._fallen.append(node)",
                "self._books.come_down(node)",
                "a policy is told of a block in the midst of its sweep",
            ),
            Mutant(
                "if node.fastest > tier:",
                "if node.tiers:",
                "who lies above is arranged by what is below",
            ),
            Mutant("self._books.rules[tier].policy.remove([node.key])", "pass", "a policy orders who expired"),
            Mutant(
                " or others or node.is_leaf:", " or node.is_leaf:", "who lies far below is lost when its time is over"
            ),
            Mutant(" or others or node.is_leaf:", " or True:", "a head whose time is over leaves its tail"),
        ),
    ),
    Group(
        file="kvtier/tiers/layered.py",
        tests=("tests/tiers/test_layered.py",),
        mutants=(
            Mutant("self._next[record] >= number", "True", "a record is checked out of order"),
            Mutant("self._next[record] >= number", "self._next[record] == number", "threads wait for each other"),
            Mutant("and not self.ends\n", "\n", "layers of a damaged run are reported"),
            Mutant("if last:", "if False:", "a record is never verified"),
            Mutant("check.add(piece)", "pass", "all layers but the first go unchecked"),
            Mutant("0 if number else self._header", "0", "the header lands in the first layers"),
            Mutant("PAGE_BYTES * num_layers", "PAGE_BYTES", "a layer begins inside a page"),
        ),
    ),
    Group(
        file="kvtier/tiers/layered.py",
        tests=("tests/tiers/test_disk.py",),
        mutants=(
            Mutant(
                "np.copyto(piece, view[start:stop])\n            return piece",
                "return view[start:stop]",
                "what is verified is not what is copied",
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/gpu_direct.py",
        tests=("tests/tiers/test_gpu_direct.py",),
        mutants=(
            Mutant("start // self._window % 2 * self._window", "0", "a window is read over the one that is checked"),
            Mutant("good.append(i)", "pass", "nothing is proven"),
            Mutant(
                "except CorruptBlockError:\n                    continue",
                "except CorruptBlockError:\n                    pass",
                "what is not proven is served",
            ),
            Mutant("batch.label(i))", "None)", "another prompt's block is served"),
            Mutant("future.get() == self._row_bytes", "future.get()", "a short read counts as arrived"),
            Mutant("left[:end]", "left", "bytes that are not proven reach the caller's buffer"),
            Mutant("            if end:\n", "            if left:\n", "the way is blamed for a damaged drive"),
            Mutant("return {left[end]: damage[end]}", "return {end: damage[end]}", "the run ends at the wrong block"),
            Mutant("for window in coming:", "for window in ():", "the drive writes to rows that are used again"),
            Mutant("return not self._broken and self.takes(out)", "return self.takes(out)", "a bad way is taken again"),
            Mutant("rows.scratch is not None and not self._broken:", "rows.scratch is not None:", "likewise, asked"),
            Mutant("len(devices) == 1 and", "", "buffers on several devices"),
            Mutant("        with self._lock:\n            try:", "        if True:\n            try:", "shared rows"),
            Mutant("-memory.data_ptr() % PAGE_BYTES", "8", "rows off a page's boundary"),
            Mutant("kvikio.CompatMode.OFF", "'AUTO'", "kvikio falls back in silence"),
            Mutant("        if os.getpid() == self._pid:", "        if True:", "a forked child closes the file"),
            Mutant("if kind not in FILE_SYSTEMS:", "if False:", "any file system will do"),
            Mutant("if not on_nvme(data):", "if False:", "any drive will do"),
            Mutant(".is_compat_mode_preferred():", ".__name__ is None:", "kvikio's own way through host memory"),
            Mutant("if not self._broken:", "if True:", "the warning is repeated"),
        ),
    ),
    Group(
        file="kvtier/placement.py",
        tests=("tests/sim/test_replay.py",),
        mutants=(
            Mutant("if quiet and new else 1", "if quiet else 1", "a parent is asked about as if it were a leaf"),
            Mutant(" if len(set(keys[at:end])) == end - at else 1", "", "a name that comes twice is two blocks"),
        ),
    ),
    Group(
        file="kvtier/tiers/memory.py",
        tests=("tests/tiers/test_memory.py",),
        mutants=(
            Mutant("return sorted(self._free.pop()", "return list(self._free.pop()", "a batch lies in no order"),
            Mutant("for key, i in reversed(news.items())", "for key, i in news.items()", "a scan lists heads first"),
            Mutant("news.setdefault(key, i)", "news[key] = i", "of two blocks of a name the last one counts"),
            Mutant("if self._readers[slot]:", "if False:", "a slot is written while it is read"),
            Mutant(
                "labels is not None and self._labels[key] != labels[i]", "False", "another prompt's block is served"
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/records.py",
        tests=("tests/tiers/test_disk.py",),
        mutants=(
            Mutant("if record is None:", "if False:", "an unreadable record is an error kvtier does not know"),
            Mutant("header.label != label", "False", "another prompt's block is served"),
            Mutant(
                "self.check(header, key, label, target.reshape(-1))", "pass", "a record in the page cache is believed"
            ),
            Mutant("label, target.reshape(-1))", "label, record[self.header :])", "what is verified is not the copy"),
            Mutant("record[: self.header].copy()", "record[: self.header]", "a header changes after it was read"),
            Mutant(
                "self._copy_out(key, record.copy(), out, label)", "self._copy_out(key, record, out, label)", "strides"
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/batches.py",
        tests=("tests/tiers/test_batches.py",),
        mutants=(
            Mutant("rows[i] != rows[i - 1] + 1", "False", "rows apart are taken for neighbours"),
            Mutant("or i - first == longest", "", "a copy without a bound"),
            Mutant("!= head.storage_offset() + i * step", "!= block.storage_offset()", "blocks apart are one tensor"),
            Mutant("block.stride() == head.stride() and ", "", "blocks of other strides are one tensor"),
            Mutant("(run.row + i, block[None])", "(run.row, block[None])", "scattered blocks get each other's bytes"),
            Mutant("layers.stop * layer_bytes", "layers.start * layer_bytes", "no layer is copied"),
            Mutant(
                "PART_BATCH_BYTES // part_bytes", "BATCH_BYTES // pool.shape[1]", "more calls than there is need of"
            ),
            Mutant("if not blocks:", "if False:", "layers of nothing"),
            Mutant("yield number", "yield 0", "the wrong part is reported"),
        ),
    ),
    Group(
        file="kvtier/leases.py",
        tests=("tests/test_leases.py",),
        mutants=(
            Mutant("index.expire(time.monotonic())", "()", "a lease never lapses"),
            Mutant("each.deadline - now", "each.deadline", "the time left is a date"),
            Mutant("None if math.isinf(each.deadline) else", "", "a read under way has a deadline"),
            Mutant('log.warning("close', 'log.info("close', "a leak is not warned of"),
            Mutant("return leaked", "return ()", "close returns no leak"),
            Mutant("for each in index.leases\n", "for each in list(index.leases)[:1]\n", "one lease stands for all"),
        ),
    ),
    Group(
        file="kvtier/streaming.py",
        tests=("tests/test_streaming.py", "tests/test_leases.py"),
        mutants=(
            Mutant("self._thread = None\n            run()", "self._thread = None", "without a thread nobody reads"),
            Mutant("self._began and not", "not", "layers are there before the read began"),
            Mutant("if self._over and not self._whole:", "if False:", "a broken stream looks whole"),
            Mutant("[sources] * len", "[1] * len", "the first tier speaks for all"),
            Mutant("arrivals.finish(whole=whole)", "pass", "who waits is never told"),
        ),
    ),
    Group(
        file="kvtier/reader.py",
        tests=(
            "tests/test_streaming.py",
            "tests/test_store.py",
            "tests/test_store_faults.py",
            "tests/tiers/test_gpu_direct.py",
        ),
        mutants=(
            Mutant("work, len(shares))", "work, 1)", "tiers are read one after another"),
            Mutant("end = min(ends)", "end = max(ends)", "blocks behind a gap are served"),
            Mutant("ends[positions[count]] = error", "ends[count] = error", "the run ends at the wrong block"),
            Mutant("share = chain.picked(positions)", "share = chain.part(0, len(positions))", "blocks of other tiers"),
            Mutant("and source.reaches(out) else", "else", "a tier gets buffers that it cannot reach"),
            Mutant(
                'return "whole" if isinstance(source, DirectTier)',
                'return "layers" if isinstance(source, DirectTier)',
                "by layers into a device",
            ),
        ),
    ),
    Group(
        file="kvtier/transfer.py",
        tests=("tests/test_transfer.py", "tests/test_store_refusals.py"),
        mutants=(
            Mutant("sorted(moves, key=_turn)", "moves", "a place is used before another plan frees it"),
            Mutant("return 0, 0, -move.src", "return 3, 0, -move.src", "drops come after those who need their places"),
            Mutant("+ 1, -move.dst", "+ 1, move.dst", "upper tiers move first"),
            Mutant("int(move.dst < move.src)", "int(move.dst > move.src)", "promotions come before departures"),
            Mutant("0 < num_durable < len", "0 < num_durable <= len", "a full batch waits for more"),
            Mutant("if not 0 < num_durable <", "if not num_durable <", "what no disk takes waits as well"),
            Mutant(
                "if not 0 < num_durable < len(self._staging.blocks):", "if True:", "every put is a commit of its own"
            ),
            Mutant("begin_by = 0.0 if urgent else", "begin_by =", "a prefetch waits for others"),
            Mutant("min(each.begin_by", "max(each.begin_by", "one who does not hurry holds up one who does"),
            Mutant("each.begin_by = 0.0", "pass", "whoever waits, waits for the batch to fill"),
            Mutant("if batch and max(", "if max(", "a plan larger than the buffer is never begun"),
            Mutant("if batch and max(arrivals.values(), default=0) >", "if False and 0 >", "a batch without a bound"),
            Mutant("self._working = bool(batch)", "self._working = True", "the thread ends and nobody starts it again"),
            Mutant("self.num_pending -= len(batch)", "self.num_pending -= 1", "ended submissions count as pending"),
            Mutant("move in done for move in self.moves", "True for _ in done", "one counts what others moved"),
            Mutant(
                "(broken[move] for move in self.moves if move in broken)", "iter(broken.values())", "others' errors"
            ),
            Mutant("if self.finished is not None:", "if self.finished and not broken:", "places are owed for ever"),
            Mutant("broken.update(dict.fromkeys(lane, exc))", "raise", "one bad move takes all others along"),
            Mutant("for error in broken.values():", "for error in ():", "what broke for the caller is not raised"),
            Mutant("if self._closed:", "if False:", "moves are queued for a thread that is gone"),
            Mutant("run[start : start + step]", "run[start : start + step + 1]", "a block is moved twice"),
            Mutant("if not move.keep])", "])", "a copy loses its source"),
            Mutant("and move.key not in exc.keys]", "]", "a refused block counts as held"),
            Mutant("if isinstance(exc, BlockRefusedError) and", "if False and", "a refusal costs the whole batch"),
        ),
    ),
    Group(
        file="kvtier/writer.py",
        tests=(
            "tests/test_store.py",
            "tests/test_store_faults.py",
            "tests/test_transfer.py",
            "tests/test_store_refusals.py",
            "tests/test_store_policies.py",
        ),
        mutants=(
            Mutant(
                "self._missing(part) - self._core.placement.free_blocks(0)",
                "self._missing(part)",
                "free places do not count",
            ),
            Mutant("free_blocks(0) <= self._behind", "free_blocks(0) < self._behind", "the last place is never used"),
            Mutant("free_blocks(0) <= self._behind", "free_blocks(0) <= 2 * self._behind", "more owed than set aside"),
            Mutant(
                "return True\n        self._mover.hurry()", "return True", "a put waits for a batch that waits for more"
            ),
            Mutant(
                "demote=demote)\n        new =", "demote=True)\n        new =", "a put owes more than was set aside"
            ),
            Mutant("placement.index.nodes[move.key].dead for", "True for", "what lies elsewhere counts as given up"),
            Mutant('"dropped_demotions", lost', '"dropped_demotions", 0', "nobody is told"),
            Mutant("self._owed += _leaving(later)", "pass", "places are used twice"),
            Mutant("self._owed -= places", "pass", "places are owed for ever"),
            Mutant("        finally:  # also", "        except TierError:  # also", "a put leaves its books open"),
            Mutant("new[:room]", "new", "copies are queued without bound"),
            Mutant("max(0, len(new) - room)", "0", "left out, and nobody is told"),
            Mutant("self._copies -= count", "pass", "after a while nothing is copied any more"),
            Mutant("if len(new) < len(part):", "if False:", "a block gets another's bytes"),
            Mutant("if len(new) == missing:", "if new:", "a put ends though it could go on"),
            Mutant("or move.key in exc.keys}", "}", "a refused block counts as held"),
            Mutant("if not isinstance(exc, BlockRefusedError) or", "if True or", "a refusal costs the whole batch"),
            Mutant("list(takewhile(lambda move: move not in lost, new))", "stored", "blocks behind a hole are new"),
            Mutant("if taken < len(new):", "if False:", "a put that failed goes on"),
            Mutant("part = self._core.placement.worth_writing(part)", "pass", "everything is worth writing"),
            Mutant("blocks = blocks[: len(part)]", "pass", "more blocks than names"),
            Mutant("self._core.placement.arrange(prompt.keys)", "pass", "copies are younger than their head"),
        ),
    ),
    Group(
        file="kvtier/tiers/copying.py",
        tests=("tests/tiers/test_copying.py",),
        mutants=(
            Mutant("for _ in range(lanes - 1)", "for _ in range(lanes)", "one lane too many"),
            Mutant("interrupted.set()\n            for", "for", "copies go on after an interrupt"),
            Mutant("raise error or errors[0]", "raise errors[0]", "an error of the caller's own lane is another"),
        ),
    ),
    Group(
        file="kvtier/formats/base.py",
        tests=("tests/formats/test_formats.py",),
        mutants=(
            Mutant("if len(encoded) != self.encoded_bytes:", "if False:", "a block cut short is decoded"),
            Mutant("if found != expected:", "if False:", "one format is read as another"),
            Mutant("out[used_bytes:] = 0", "pass", "what was there before is stored as well"),
            Mutant('layout=f"{namespace.layout}/{name}"', "layout=namespace.layout", "exact and lossy blocks mix"),
            Mutant("memory.strides[-1] != 1", "False", "strided bytes are taken for numbers"),
            Mutant("if more and more[-1] in FORMATS:", "if more:", "chunks are forgotten"),
        ),
    ),
    Group(
        file="kvtier/formats/lossless.py",
        tests=("tests/formats/test_lossless.py",),
        mutants=(
            Mutant("if needed > len(out):", "if False:", "a block runs over its place"),
            Mutant("sum(sizes) * self._low_bytes", "sum(sizes)", "planes are looked for elsewhere"),
            Mutant("shifted <<= 15", "shifted <<= 14", "signs move"),
            Mutant("upper >>= 15", "upper >>= 14", "a bit of the exponent joins the sign"),
            Mutant("!= used:", "< 0:", "frames that do not add up are decoded"),
            Mutant("if len(plane) != size:", "if False:", "a short plane is decoded"),
            Mutant("halves[:, 0] = encoded", "halves[:, 1] = encoded", "low halves over high ones"),
            Mutant("if len(frame) == size:", "if False:", "a plane stored as it is is taken for a frame"),
            Mutant("low_at = _join(", "_join(", "every group gets the first one's mantissas"),
        ),
    ),
    Group(
        file="kvtier/formats/quantized.py",
        tests=("tests/formats/test_formats.py", "tests/formats/test_quantized.py"),
        mutants=(
            Mutant("_CHANNEL_AXIS if half else _TOKEN_AXIS", "_CHANNEL_AXIS", "keys share a scale over channels"),
            Mutant(" or (parameters[-1] <= 0).any()", "", "a scale of nought is believed"),
            Mutant("bits += odd", "pass", "ties are rounded down"),
            Mutant("np.clip(numbers, -largest, largest, out=numbers)", "pass", "a large number becomes infinite"),
            Mutant("+ np.uint32(0xFFFF)) >> 16)", ") >> 16)", "a scale too small for its group"),
            Mutant("if used != self._used:", "if False:", "a header that lies is believed"),
            Mutant("np.maximum(numbers, SMALLEST_SCALE)", "numbers", "a division by nought"),
        ),
    ),
    Group(
        file="kvtier/formats/affine.py",
        tests=("tests/formats/test_formats.py", "tests/formats/test_quantized.py"),
        mutants=(
            Mutant("np.rint(numbers, out=numbers)", "np.floor(numbers, out=numbers)", "off by a whole step"),
            Mutant("numbers[..., half:] *= 16", "numbers[..., half:] *= 8", "nibbles overlap"),
            Mutant("np.right_shift(codes, 4,", "np.right_shift(codes, 3,", "nibbles overlap"),
            Mutant("- widened(start)", "- numbers.min(axis=axis, keepdims=True)", "the high end has no code"),
            Mutant("levels: ClassVar[int] = 15", "levels: ClassVar[int] = 7", "half of the codes are not used"),
        ),
    ),
    Group(
        file="kvtier/formats/fp8.py",
        tests=("tests/formats/test_quantized.py",),
        mutants=(
            Mutant("(1 << (_DROPPED_BITS - 1)) - 1 +", "0 +", "numbers are rounded towards zero"),
            Mutant("np.uint32) << 7", "np.uint32) << 6", "signs are lost"),
            Mutant(", -numbers.min(axis=axis, keepdims=True))", ", 0)", "large negative numbers have no code"),
        ),
    ),
    Group(
        file="kvtier/formats/encrypted.py",
        tests=("tests/formats/test_encryption.py",),
        mutants=(
            Mutant(
                "nonce = out.numpy(), os.urandom(_NONCE_BYTES)", "nonce = out.numpy(), bytes(_NONCE_BYTES)", "one nonce"
            ),
            Mutant(
                "cipher.encrypt_into(nonce, plain, header + key,",
                "cipher.encrypt_into(nonce, plain, key,",
                "a bare header",
            ),
            Mutant("            plain[:] = 0  # the", "            pass  # the", "forged bytes are left to the caller"),
            Mutant("encoded[self._end :] = 0", "pass", "what was there before is stored as well"),
            Mutant("if len(stored) != self.encoded_bytes:", "if False:", "a block cut short is looked at"),
            Mutant("if found != [_MAGIC, _VERSION, _CIPHER, 0]:", "if False:", "no reason for what is not encrypted"),
            Mutant("if key_id != self._key.id:", "if False:", "no reason for another key"),
            Mutant('f"{inner.name}/{own}"', "own", "formats mix under one key"),
            Mutant(
                'own = f"{ENCRYPTION}{key.id.hex()}"', 'own = f"{ENCRYPTION}{bytes(8).hex()}"', "names do not tell keys"
            ),
            Mutant("self.exact = inner is None or inner.exact", "self.exact = True", "a lossy format is called exact"),
            Mutant("        elif not in_place:", "        elif False:", "a strided buffer is not filled"),
        ),
    ),
    Group(
        file="kvtier/formats/keys.py",
        tests=("tests/formats/test_keys.py", "tests/formats/test_encryption.py"),
        mutants=(
            Mutant("self._of_blocks.copy()", "self._of_blocks", "a block's key depends on those before it"),
            Mutant("        state.update(name)\n", "", "one key for all names"),
            Mutant("| os.O_NOFOLLOW", "", "a link is followed"),
            Mutant(" | os.O_NONBLOCK", "", "a pipe is waited for"),
            Mutant("if not stat.S_ISREG(status.st_mode):", "if False:", "a directory is read"),
            Mutant("if status.st_uid != os.geteuid():", "if False:", "somebody else's key"),
            Mutant("status.st_mode & 0o077", "status.st_mode & 0o007", "the group reads the key"),
            Mutant("status.st_mode & 0o077", "status.st_mode & 0o044", "others may change the key"),
            Mutant(
                "    if len(content) == KEY_BYTES:", "    if len(digits) == KEY_BYTES:", "a newline is taken for a part"
            ),
            Mutant("if len(digits) != 2 * KEY_BYTES or len(secret)", "if len(secret)", "spaces between digits"),
            Mutant("if len(secret) != KEY_BYTES:\n            raise", "if False:\n            raise", "a short key"),
            Mutant("if not isinstance(secret, bytes):", "if False:", "text is taken for a key"),
            Mutant("person=_ID_PERSON)", "person=_BLOCK_PERSON)", "the id is of the kind of a block's key"),
        ),
    ),
    Group(
        file="kvtier/tiers/encoded.py",
        tests=("tests/tiers/test_encoded.py", "tests/formats/test_encryption.py"),
        mutants=(
            Mutant("if inner.block_bytes != codec.encoded_bytes:", "if False:", "any tier will do"),
            Mutant("if i not in reasons]", "]", "a refused block is stored"),
            Mutant("return start + count", "return count", "a long run is reported short"),
            Mutant("raise damage[min(damage)]", "raise damage[max(damage)]", "damage before the one named"),
            Mutant(
                "                    except CorruptBlockError as exc:\n                        damage[i] = exc",
                "                    except CorruptBlockError:\n                        pass",
                "damage is served",
            ),
            Mutant("if count < len(keys[part]):", "if False:", "a read goes on behind a hole"),
            Mutant("self._state.wait_for(lambda: not self._busy)", "pass", "a decode outlives its threads"),
            Mutant("if self._closed:", "if False:", "a closed tier is used"),
            Mutant("not self._closed and kept <= _KEPT_BYTES", "True", "scratch of the longest batch is kept"),
            Mutant("if len(spare) >= count), None)", "), None)", "scratch too short for its batch"),
            Mutant("// self.inner.block_bytes * self.block_bytes", "", "used bytes of another kind than capacity"),
            Mutant("not self._warned, True", "not self._warned, False", "a warning for every batch"),
        ),
    ),
    Group(
        file="kvtier/opening.py",
        tests=("tests/test_store_formats.py", "tests/formats/test_encryption.py"),
        mutants=(
            Mutant("namespace if codec is None else in_format(namespace, codec.name)", "namespace", "formats mix"),
            Mutant("return Encrypted(spec, load_key(key), codec)", "return codec", "no encryption"),
            Mutant(
                'if not disk_bytes:\n        raise ConfigError("encryption_key',
                'if False:\n        raise ConfigError("encryption_key',
                "a key for no disk is taken silently",
            ),
            Mutant(
                'if not disk_bytes:\n        raise ConfigError(f"disk_format',
                'if False:\n        raise ConfigError(f"disk_format',
                "a format for no disk is taken silently",
            ),
        ),
    ),
    Group(
        file="kvtier/listing.py",
        tests=("tests/test_listing.py",),
        mutants=(
            Mutant("and self.name(low) == name", "", "a stranger is taken for the name next to it"),
            Mutant("if high - low > 1:", "if False:", "names that begin alike are not found"),
            Mutant("if (own[1:] == own[:-1]).any():", "if False:", "a parent is another name that begins alike"),
            Mutant("rows[(names[rows] != parents).any(axis=1)] = -1", "pass", "every block has a parent"),
            Mutant("begin = int(self._ends[row - 1]) if row else 0", "begin = 0", "a label has its neighbours' tokens"),
            Mutant("order=np.argsort(by_name)", "order=np.arange(len(listed))", "a listing forgets what is old"),
            Mutant("if row >= 0 and self._left[row] else -1", "", "what left is found again"),
            Mutant("self.num -= 1", "pass", "nobody ever has left"),
            Mutant("self.listing.name(self.rows[::-1][at])", "self.listing.name(self.rows[at])", "the oldest first"),
        ),
    ),
    Group(
        file="kvtier/resting.py",
        tests=("tests/test_resting.py",),
        mutants=(
            Mutant("& (depths[parents] < depths))", ")", "a block hangs on one that is no higher"),
            Mutant("np.asarray(sound[top], np.bool_)", "sound", "an orphan's child is taken up"),
            Mutant(
                "while not np.array_equal(top, further := top[top]):", "while False:\n        further = top", "likewise"
            ),
            Mutant("& (listing.depths > 0)", "", "a first block is somebody's child"),
            Mutant("return found[::-1]", "return found", "a child wakes before its parent"),
            Mutant("if child in self._asleep]", "]", "a block wakes twice"),
            Mutant("np.argsort(listing.depths[lost]", "np.argsort(-listing.depths[lost].astype(int)", "children first"),
            Mutant("self._parents[~kept] = -1", "pass", "a first block wakes another"),
        ),
    ),
    Group(
        file="kvtier/tiers/entries.py",
        tests=("tests/tiers/test_entries.py",),
        mutants=(
            Mutant("len(values) > 1 or", "", "entries of other lengths are cut as if they were alike"),
            Mutant("keys != {HASH_BYTES} or", "", "keys that are no names are cut as names"),
            Mutant("or size < 0:", ":", "an index of short entries cannot be opened"),
            Mutant("and len(value) >= _HEAD_BYTES:", ":", "a short entry among others stops the opening"),
            Mutant("damaged.append(key)", "pass", "damage is not named"),
            Mutant("((1 << depth_bits) - 1) - depth", "depth", "heads leave before tails"),
            Mutant("> 64:", "> 640:", "large numbers of commits run into one another"),
            Mutant(
                "np.lexsort((~depth, batch))", "np.lexsort((batch, ~depth))", "the deepest leaves first, however new"
            ),
            Mutant("np.cumsum(ends[:end], out=ends[:end])", "pass", "token ids are cut at the wrong place"),
        ),
    ),
    Group(
        file="kvtier/rates.py",
        tests=("tests/test_rates.py",),
        mutants=(
            Mutant("if found.min() >= 0 and value < least", "if value < least", "a negative weight"),
            Mutant("term / seconds for term in terms", "term for term in terms", "not the relative error"),
            Mutant("_FORGET ** (self._num_seen - number)", "_FORGET ** number", "the oldest count most"),
            Mutant("setdefault(size, deque", "setdefault(0, deque", "short passes wash out long ones"),
            Mutant("_RIDGE * (np.arange(len(aim)) > 0)", "0.0", "nothing tells terms apart that one observation has"),
            Mutant(
                "Cost(self._weights, max(1.0, self._beside)", "Cost(self._weights, self._beside", "faster in company"
            ),
            Mutant("beside=max(1.0, self._beside)", "beside=1.0", "a profile holds beside the other side too"),
            Mutant(
                "if self.profiled is None or self._observed(terms[0]) else", "if True else", "a profile is not asked"
            ),
            Mutant(
                "if self.profiled is None or self._observed(terms[0]) else",
                "if self.profiled is None else",
                "a profile is never disproved",
            ),
            Mutant("self.profiled.covers(first_term))", "False)", "beyond what was seen nothing is known"),
            Mutant("num_seen=max(_ENOUGH, cost.num_seen)", "num_seen=cost.num_seen", "a short profile says nothing"),
            Mutant("tier.latency_s.value), 1.0, _ENOUGH", "0.0), 1.0, _ENOUGH", "requests cost nothing"),
            Mutant("prefill_terms(0, point.tokens), profile", "(point.tokens, 0, 0), profile", "attention is free"),
            Mutant("if name in known else said", "if False else said", "a profile replaces what was seen"),
            Mutant("known = self.cost() if beside else None", "known = None", "work beside the other counts as alone"),
            Mutant("first_term <= _REACH * self.largest", "True", "predicts any size from the smallest"),
            Mutant("self.num_seen >= _ENOUGH and ", "", "one observation is enough"),
            Mutant(
                "for other, count in queued.items() if other != user", "for count in queued.values()", "crowds itself"
            ),
            Mutant("min(num_bytes, theirs)", "theirs", "waits for all that others want"),
            Mutant("if not crowded or not", "if True or not", "crowded reads count as if alone"),
            Mutant("-(-stop // step) - start // step", "(stop - start) // step", "a pass is forgotten"),
        ),
    ),
    Group(
        file="kvtier/ground.py",
        tests=("tests/test_ground.py",),
        mutants=(
            Mutant("self.back -= count", "self.back -= count - 1", "a unit is brought twice"),
            Mutant("self.front += count", "self.front += count + 1", "a unit is brought by nobody"),
            Mutant(
                "not self.loading and self._window is None", "not self.loading", "a window under way is not waited for"
            ),
            Mutant("if unit > self.front", "if unit < self.front", "what was loaded behind a hole is lost"),
            Mutant(
                "range(start, start + num_units)", "range(start, self.num_units)", "a failed window counts as loaded"
            ),
            Mutant("while self.front in self.loaded", "if self.front in self.loaded", "loaded units are computed"),
            Mutant("if self._single:", "if False:", "chunks are computed together"),
            Mutant(
                "self._alone = rest - until <= self._least_s", "self._alone = False", "computes though it gains nothing"
            ),
            Mutant("if left <= 0 or self._alone:", "if left <= 0:", "leaves work to a side that has declined"),
            Mutant("        if rest - until <= self._least_s:", "        if False:", "loads though it gains nothing"),
            Mutant("_PIECE_SHARE * (meeting", "1.2 * (meeting", "computes beyond the meeting"),
            Mutant("_WINDOW_SHARE * (self.back", "2 * (self.back", "loads beyond the meeting"),
        ),
    ),
    Group(
        file="kvtier/reuse.py",
        tests=("tests/test_reuse.py",),
        mutants=(
            Mutant("self.num_reusable)", "self.num_tokens)", "the last token is not computed"),
            Mutant("seconds * self._crowding[tier]", "seconds", "the queue is not looked at"),
            Mutant("< _WORTH_BOTH * known[alone]", "< 0", "never both"),
            Mutant('if "both" in known and again', "if False", "a side that was slow once is left out for ever"),
            Mutant('if known["load"] < _SHORT_S', "if False", "decides about nothing"),
            Mutant(
                '"load" if known["load"] <= known["compute"] else "compute"\n    if', '"compute"\n    if', "never loads"
            ),
            Mutant("return min(found)", "return max(found)", "begins with a slow head"),
            Mutant("(self.load_s(0, head) or 0.0) + met", "met", "the head comes for nothing"),
            Mutant('min(known["load"], known["compute"]):', "9e9:", "both though it gains nothing"),
        ),
    ),
    Group(
        file="kvtier/integrations/shadow.py",
        tests=("tests/integrations/test_shadow.py",),
        mutants=(
            Mutant("if chunk_tokens is None:", "if False:", "rounding is reported as damage"),
            Mutant('and name != "lossless":', "and False:", "a lossy format is reported as damage"),
            Mutant("wrong |= torch.ne", "wrong = torch.ne", "only the last layer is looked at"),
            Mutant(
                '"shadow_mismatches", token is not None or far is not None',
                '"shadow_mismatches", far is not None',
                "wrong keys without logits are not counted",
            ),
            Mutant("for tier in range(len(core.tiers))", "for tier in range(1)", "a wrong block is served from below"),
            Mutant("if block is not None and block < len(chain):", "if False:", "a wrong block is served again"),
            Mutant("random.Random(seed)", "random.Random()", "nobody can repeat what was drawn"),
        ),
    ),
    Group(
        file="kvtier/integrations/filling.py",
        tests=("tests/integrations/test_shadow.py",),
        mutants=(
            Mutant("        given.copy_(computed)\n", "", "what is wrong is continued from"),
            Mutant("not done.reused or not self.shadow", "not self.shadow", "a miss is computed twice"),
            Mutant(
                'return Hit(0, (), "damaged"), _Done(cache, again.logits, 0)',
                "return hit, _Done(cache, again.logits, 0)",
                "what was computed again is not stored",
            ),
        ),
    ),
    Group(
        file="kvtier/oracle/trial.py",
        tests=("tests/test_oracle.py",),
        mutants=(
            Mutant("self.max_logit_difference != 0.0", "self.max_logit_difference > 1e-3", "nearly is enough"),
            Mutant(
                'return "exact" if self.untried is None else "NOT TRIED"', 'return "exact"', "content without looking"
            ),
            Mutant("self._wrong += len(wrong)", "self._wrong += 0", "a bit that the logits hide is not seen"),
        ),
    ),
    Group(
        file="kvtier/oracle/reference.py",
        tests=("tests/test_oracle.py",),
        mutants=(
            Mutant(
                "torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))",
                "torch.equal(one, other)",
                "two zeros are one",
            ),
            Mutant("(equal or kept or", "(kept or", "an older computation is taken for the truth"),
            Mutant("start = cache.get_seq_length()", "start = 0", "the prefix is computed twice"),
        ),
    ),
    Group(
        file="kvtier/oracle/files.py",
        tests=("tests/test_oracle.py",),
        mutants=(
            Mutant("1 << draw.randrange(8)", "0", "damage that damages nothing"),
            Mutant(" and page[_NAME] in wanted", "", "every record is damaged"),
        ),
    ),
    Group(
        file="kvtier/oracle/modes.py",
        tests=("tests/test_oracle.py",),
        mutants=(
            Mutant("        raise error\n", "        pass\n", "a crash beside the model goes unseen"),
            Mutant("if found < len(set(names)) or not noticed:", "if False:", "content though nothing was damaged"),
            Mutant("_sink(bench, lm.store, ids)", "pass", "all tiers are one"),
        ),
    ),
    Group(
        file="kvtier/cli.py",
        tests=("tests/test_cli.py",),
        mutants=(
            Mutant("return 2 if isinstance(exc, ConfigError) else 1", "return 1", "a typing error looks like damage"),
            Mutant("COMMANDS if name is None else [name]", "COMMANDS", "every command is loaded for one"),
            Mutant("        return 128 + signal.SIGPIPE", "        raise", "a closed pipe is a traceback"),
        ),
    ),
    Group(
        file="kvtier/commands/output.py",
        tests=("tests/test_cli.py",),
        mutants=(
            Mutant(
                'file=sys.stderr if target == "-" else sys.stdout', "file=sys.stdout", "JSON with a table before it"
            ),
            Mutant(
                "or not Path(text).absolute().parent.is_dir()",
                "or False",
                "a mistyped place is found after the work",
            ),
        ),
    ),
    Group(
        file="kvtier/doctor/reading.py",
        tests=("tests/doctor/test_checking.py", "tests/doctor/test_inspecting.py"),
        mutants=(
            Mutant("free = its.exclusive()", "free = its.exclusive() or True", "takes a file from a live store"),
            Mutant("if version != FORMAT_VERSION:", "if False:", "reads another format as its own"),
            Mutant("return [str(exc)]", "return []", "hands to LMDB what is no LMDB file"),
            Mutant("there(start // PAGE_BYTES - 1, expected)", "True", "believes a place without looking"),
            Mutant("None if page is None else (page + 1) * PAGE_BYTES", "None", "a slab that is there is lost"),
            Mutant("slot_bytes <= data.stat().st_size", "True", "memory as large as a damaged number says"),
            Mutant("commit=books.commit + 1", "commit=1", "commits are counted anew"),
            Mutant("txn.delete(key, db=index)", "pass", "a repair repairs nothing"),
            Mutant("_replace(blocks=blocks,", "_replace(blocks=blocks + 1,", "books that do not add up"),
        ),
    ),
    Group(
        file="kvtier/doctor/prefixes.py",
        tests=("tests/doctor/test_prefixes.py",),
        mutants=(
            Mutant("(depths[self.parents] == depths - 1)", "True", "a block at any depth passes"),
            Mutant("self.parents >= 0) &", "self.parents >= -1) &", "the last row is everybody's parent"),
            Mutant("not whole[parents[row]]", "False", "what hangs on an orphan passes"),
            Mutant("(good & fits)", "(fits)", "a damaged block passes"),
            Mutant("sizes[row] + 1", "1", "only children are counted"),
            Mutant("[self.whole & (self.listing.depths > 0)]", "[self.listing.depths > 0]", "orphans are counted"),
            Mutant("return path[::-1]", "return path", "a prefix from its end"),
            Mutant("root[row] = root[parents[row]]", "pass", "a namespace has first blocks only"),
        ),
    ),
    Group(
        file="kvtier/doctor/copying.py",
        tests=("tests/doctor/test_checking.py", "tests/doctor/test_salvage.py"),
        mutants=(
            Mutant("named.label != label", "False", "an entry may say anything of its record"),
            Mutant("if length < record_bytes:", "if False:", "what was read before passes for what is missing"),
            Mutant("return record.row, exc.reason", "return record.row, None", "damage is found and forgotten"),
            Mutant("for record in islice(rest, 1)]", "for record in islice(rest, 0)]", "the first few records only"),
            Mutant("Readers(self.threads, lambda done, _: self", "Readers(0, lambda done, _: self", "nobody copies"),
        ),
    ),
    Group(
        file="kvtier/doctor/checking.py",
        tests=("tests/doctor/test_checking.py", "tests/doctor/test_salvage.py"),
        mutants=(
            Mutant("with alone(directory):", "if True:", "looks at a store in use"),
            Mutant("if blocks != entries:", "if False:", "books may say anything"),
            Mutant("bad[list(wrong)] = True", "pass", "a damaged block stays"),
            Mutant("forest = Forest(listing, ~bad)", "forest = Forest(listing)", "its descendants stay"),
            Mutant("return [*held.damaged, *map(", "return [*map(", "unreadable entries stay"),
            Mutant("if counts[slot] > 1", "if counts[slot] > 2", "two blocks in one slot"),
            Mutant("and None not in held.starts", "", "the records of a lost slab are given up"),
            Mutant("held.books is not None and", "", "books that cannot be read stay so"),
            Mutant("and sound and not (directory / DAMAGED).exists()", "and sound", "what was set aside is lost"),
            Mutant("    clear(directory)\n    sound", "    sound", "what a kill left stays for ever"),
        ),
    ),
    Group(
        file="kvtier/doctor/salvage.py",
        tests=("tests/doctor/test_salvage.py", "tests/doctor/test_checking.py"),
        mutants=(
            Mutant("pages[:: PAGE_BYTES // 4]", "pages", "records are looked for where none can begin"),
            Mutant("payload > 0 and fits", "payload > 0", "a header that lies about its length decides"),
            Mutant("sizes.most_common(1)[0]", "sizes.most_common()[-1]", "the sizes of one stray record decide"),
            Mutant("or record.place < free_from", "", "a block's payload passes for a block"),
            Mutant("if record.row in wrong or", "if", "what does not prove itself is brought back"),
            Mutant("if each.key not in seen]", "]", "a block twice"),
            Mutant("(directory / DAMAGED).unlink(missing_ok=True)", "pass", "a file nobody needs stays"),
            Mutant("if held is None and not seen:", "if False:", "an empty store in place of a file nobody understood"),
            Mutant("os.SEEK_DATA", "os.SEEK_SET", "every hole is read through"),
            Mutant("Entry(0, slot,", "Entry(1 << 40, slot,", "what was brought back is the youngest"),
        ),
    ),
    Group(
        file="kvtier/doctor/rebuilding.py",
        tests=("tests/doctor/test_compacting.py", "tests/doctor/test_salvage.py"),
        mutants=(
            Mutant("max(books.commit, newest) + 1", "books.commit + 1", "what is stored later is older"),
            Mutant("if needed > free:", "if False:", "fills the disk to find out"),
            Mutant("self._slabs.keep_places(commit)", "pass", "every slab is searched for at the next opening"),
            Mutant("place.is_symlink() or (", "(", "removes what a link points to"),
            Mutant("listing.name(row) not in wrong", "True", "an entry for a record that was not copied"),
            Mutant("blocks=books.blocks + len(batch)", "blocks=len(batch) + 1", "books that do not add up"),
            Mutant("        (place / DATA).rename(directory / DATA)", "        pass", "the new file is thrown away"),
        ),
    ),
    Group(
        file="kvtier/doctor/bundle.py",
        tests=("tests/doctor/test_bundle.py",),
        mutants=(
            Mutant("!= digest.digest():", "== bytes():", "a digest nobody compares"),
            Mutant("digest.update(record.data)", "pass", "a digest of the manifest alone"),
            Mutant("if self._size != expected:", "if False:", "memory as large as a manifest says"),
            Mutant("if key in labels:", "if False:", "a block twice"),
            Mutant("or label.depth != depth", "", "a block at any depth"),
            Mutant("label.parent not in self.manifest.namespaces", "False", "a block without its parent"),
            Mutant("0 < size < 1 << 48", "0 <= size < 1 << 48", "a bundle of nothing"),
            Mutant("isinstance(size, bool) or", "", "True passes for a size"),
            Mutant("min(MAX_MANIFEST_BYTES, self._size - _HEAD.size)", "self._size", "a manifest of any length"),
            Mutant("if version != VERSION:", "if False:", "another version is read as this one"),
            Mutant("len(root) != HASH_BYTES or", "", "a root that is no name"),
            Mutant('about.get("record_version") != FORMAT_VERSION', "False", "records of another version"),
            Mutant("self._partial.unlink(missing_ok=True)", "pass", "half a bundle stays"),
            Mutant("except (ValueError, RecursionError)", "except ValueError", "a deep manifest ends the program"),
        ),
    ),
    Group(
        file="kvtier/doctor/carrying.py",
        tests=("tests/doctor/test_carrying.py",),
        mutants=(
            Mutant("elif len(take) >= room:", "elif False:", "more than the store may hold"),
            Mutant("// manifest.block_bytes - num_held", "// manifest.block_bytes", "what is held takes no room"),
            Mutant("if got != expected:", "if False:", "blocks of another size"),
            Mutant("root[key] not in known", "False", "blocks of anybody's model"),
            Mutant("root.get(label.parent, label.parent)", "label.parent", "only first blocks have a namespace"),
            Mutant("good[list(wrong)] = False", "pass", "damage is carried along"),
            Mutant("if len(missing) <= limit:", "if True:", "more than asked for"),
            Mutant("taken & inside, choice", "inside, choice", "a limit takes what was not chosen"),
            Mutant("held.listing.order[::-1]", "held.listing.order", "the oldest instead of the newest"),
            Mutant("if choice.below:", "if True:", "other people's prompts are carried along"),
            Mutant("root.hex().startswith(choice.namespace.lower())", "True", "all namespaces"),
            Mutant("startswith(prefix.lower())", "startswith(prefix)", "digits written large are not found"),
            Mutant("fate[_HELD] += 1", "take.add(key)", "what is held is counted as new"),
        ),
    ),
    Group(
        file="kvtier/doctor/inspecting.py",
        tests=("tests/doctor/test_inspecting.py",),
        mutants=(
            Mutant("children[whole] > 1]", "children[whole] > 0]", "every block of a shared beginning is named"),
            Mutant("children[whole] == 0]", "children[whole] >= 0]", "every beginning is a chain"),
            Mutant("-sizes[rows]", "sizes[rows]", "the smallest first"),
            Mutant(
                "tokens[_SHOWN_TOKENS:][-_SHOWN_TOKENS:]", "tokens[-_SHOWN_TOKENS:]", "a short prefix is shown twice"
            ),
            Mutant("max(low, 2 * low - 1)", "2 * low", "bars that overlap what they say"),
            Mutant("int((children[rows] == 0).sum())", "len(rows)", "every block is a prompt"),
        ),
    ),
    Group(
        file="kvtier/books.py",
        tests=(
            "tests/test_placement.py",
            "tests/test_placement_aging.py",
            "tests/test_placement_expiry.py",
            "tests/test_reconsidering.py",
            "tests/test_intake.py",
            "tests/test_resting.py",
            "tests/test_placement_machine.py",
            "tests/test_intake_machine.py",
        ),
        mutants=(
            Mutant("label.depth == 0 or (parent", "(parent", "no prompt can begin"),
            Mutant("and parent.depth < label.depth", "", "a block hangs on one that is no higher"),
            Mutant("self.used[tier] -= 1\n        node.doomed", "node.doomed", "a place is never given back"),
            Mutant("node.doomed &= ~(1 << tier)", "pass", "a dropped block is dropped for ever"),
            Mutant(
                "node.doomed |= 1 << tier\n        self.rules[tier].policy.remove([node.key])",
                "node.doomed |= 1 << tier",
                "a policy orders what is gone",
            ),
            Mutant(
                "self.rules[tier].policy.remove([node.key])\n        self.strangers.add",
                "self.strangers.add",
                "a policy orders strangers",
            ),
            Mutant("self.strangers.add(tier, node.key, node.label)", "pass", "what stays for others is forgotten"),
            Mutant("            lost.dead = True", "            pass", "descendants can be built upon"),
            Mutant(
                "if node.tiers or node.moves or node.dead:", "if node.moves or node.dead:", "a copy left is not enough"
            ),
            Mutant(
                "if node.tiers or node.moves or node.dead:", "if node.tiers or node.dead:", "an arriving block is lost"
            ),
            Mutant("        if node.moves:\n            return []\n", "", "a doomed block is dropped under a move"),
            Mutant("self.begin(node, 1 << drop.src)", "pass", "a name is free before its drop is over"),
            Mutant(
                "node.doomed |= 1 << tier\n        return self.settle(node)",
                "node.doomed |= 1 << tier\n        return []",
                "orphans stay for ever",
            ),
            Mutant(
                "            node.dead = True\n        node.doomed",
                "        node.doomed",
                "an orphan on its way out is built upon",
            ),
            Mutant(
                "            self.index.detach(node)\n        return make_move",
                "            pass\n        return make_move",
                "a lost block is alive",
            ),
            Mutant("if node is None or not node.moves:\n", "if True:\n", "a stranger is sent off under a move"),
            Mutant("                self.strangers.pop(tier, key)\n", "", "a stranger is sent off twice"),
            Mutant("if tier == spare:", "if False:", "what others may still use is dropped"),
            Mutant(
                "        self.index.detach(node)\n        for lost",
                "        for lost",
                "what was given up is still somebody's child",
            ),
            Mutant("lost.parent = lost.below = None", "pass", "what was given up stays in memory"),
            Mutant("del siblings[tier, key]", "pass", "a stranger that left is taken up"),
            Mutant("self.arranging[node.fastest]", "self.arranging[0]", "who falls back on a copy is old there"),
            Mutant(
                "tiers[0].policy if len(tiers) == 1 else None",
                "tiers[0].policy",
                "several tiers ask again, and not always",
            ),
            Mutant("    reconsider(node.key)", "pass", "who waits is never asked about"),
            Mutant("node.changing |= tiers", "node.changing = tiers", "a block on its way out is dropped twice"),
            Mutant("return bool(self._children)", "return False", "strangers are never taken up"),
        ),
    ),
    Group(
        file="kvtier/intake.py",
        tests=(
            "tests/test_intake.py",
            "tests/test_placement.py",
            "tests/test_placement_aging.py",
            "tests/test_placement_expiry.py",
            "tests/test_reconsidering.py",
            "tests/test_resting.py",
            "tests/test_placement_machine.py",
            "tests/test_intake_machine.py",
        ),
        mutants=(
            Mutant("if anew else []", "if False else []", "what went with the old file is believed"),
            Mutant("if key in moved]) if anew", "]) if anew", "all that is gone is dropped once more"),
            Mutant("node.changing >> tier & 1 and listing", "listing", "what is heard of a block elsewhere stays"),
            Mutant("and listing.find(node.key) < 0:", "and True:", "what lies in the new file is dropped"),
            Mutant("self._heard[tier, node.key] = False", "pass", "a late report is believed"),
            Mutant(
                "in sorted(listed, key=lambda entry: entry[1].depth):",
                "in listed:",
                "a child listed first is an orphan",
            ),
            Mutant("if node is None and self._books.parent_alive(label):", "if node is None:", "orphans are taken up"),
            Mutant("if node is None or node.dead:  # an", "if node is None:  # an", "what was given up is served"),
            Mutant("for key, _ in reversed(listed)", "for key, _ in listed", "the newest leaves first"),
            Mutant(
                "return follow + self._shrink(tier, 0 if shared else len(listed) - len(taken))",
                "return follow",
                "over capacity after a restart",
            ),
            Mutant(
                "0 if shared else len(listed) - len(taken)",
                "len(listed) - len(taken)",
                "strangers that stay count as leaving",
            ),
            Mutant(
                "0 if shared else len(resting.orphans)",
                "len(resting.orphans)",
                "strangers in columns that stay count as leaving",
            ),
            Mutant("self._books.used[tier] += len(listing)", "pass", "what a restart found takes no place"),
            Mutant("for row in resting.orphans:", "for row in []:", "orphans found in columns stay for ever"),
            Mutant(
                "follow + self._shrink(tier, 0 if shared else len(resting.orphans))",
                "follow",
                "over capacity after a restart in columns",
            ),
            Mutant("policy.insert(resting.roll)", "policy.insert([*resting.roll][::-1])", "the newest leaves first"),
            Mutant("capacity_blocks + leaving", "capacity_blocks", "orphans push out what would fit without them"),
            Mutant("while progress and", "if progress and", "a parent is kept though its child left"),
            Mutant(
                "bool(node.tiers & ~(1 << tier)) or node.is_leaf", "True", "a restart drops parents before children"
            ),
            Mutant(
                "bool(node.tiers & ~(1 << tier)) or node.is_leaf",
                "node.is_leaf",
                "a restart keeps a parent that lies elsewhere too",
            ),
            Mutant(
                "                self.adopt(key)\n            if node is None",
                "            if node is None",
                "another tier's strangers stay strangers",
            ),
            Mutant(
                "books.used[tier] -= 1\n                continue", "continue", "a stranger that left keeps its place"
            ),
            Mutant(
                "books.used[tier] -= 1\n                follow",
                "follow",
                "a block that others took away keeps its place",
            ),
            Mutant("books.rules[tier].policy.remove([key])", "pass", "a policy orders what others took away"),
            Mutant("self._heard[tier, key] = False", "pass", "a block taken away as it came is served"),
            Mutant("books.resolve(node, spare=tier)", "books.resolve(node)", "what others may still use is dropped"),
            Mutant(
                "held.update(resting.listing.name(row) for row in resting.rows())",
                "pass",
                "a block asleep outlives its record",
            ),
            Mutant("held.update(self._books.strangers.of(tier))", "pass", "a stranger outlives its record"),
            Mutant("if key not in moved])", "])", "a listing older than a report takes the block away"),
            Mutant("and not self._is_changing(key, tier)", "", "a block on its way is heard of twice"),
            Mutant(
                "for key, label in listing if key not in known",
                "for key, label in () if key not in known",
                "what others brought is never found",
            ),
            Mutant("or not self._books.parent_alive(label):", "or False:", "a stranger without a parent is taken up"),
            Mutant("if node is None or not node.moves:", "if True:", "a block on its way out is taken up"),
            Mutant("waiting.append(child)", "pass", "only the first stranger of a chain is taken up"),
            Mutant(
                "if self._heard.pop((tier, node.key), False):\n            self._books.used",
                "if False:\n            self._books.used",
                "a block brought again as it left is not counted",
            ),
            Mutant(
                "self._books.used[tier] += 1\n            node.doomed", "node.doomed", "a place is given back twice"
            ),
            Mutant(
                "if not node.doomed >> tier & 1 and self._heard", "if self._heard", "a doomed copy is counted twice"
            ),
            Mutant(
                "if node.dead:\n                    books.strangers",
                "if False:\n                    books.strangers",
                "the dead are served",
            ),
            Mutant("self._heard[tier, key] = True", "pass", "what others brought during a move is forgotten"),
            Mutant("if key in books.strangers.of(tier) or (node", "if (node", "a stranger told twice is counted twice"),
            Mutant(" or (node is not None and node.tiers >> tier & 1)", "", "a block told twice is counted twice"),
            Mutant("if node is not None or books.parent_alive(label):", "if True:", "strangers are served"),
            Mutant(
                "            self.adopt(key)\n        else:",
                "        else:",
                "strangers wait for a parent that others brought",
            ),
            Mutant("if not shared:", "if True:", "a restart drops what another process needs"),
            Mutant("if not shared:", "if False:", "orphans stay for ever"),
            Mutant(
                "return not self._heard and not self._books.strangers",
                "return not self._heard",
                "strangers wait for a parent that is here",
            ),
            Mutant(
                "return not self._heard and not self._books.strangers",
                "return not self._books.strangers",
                "what was heard during a move is forgotten",
            ),
        ),
    ),
    Group(
        file="kvtier/health.py",
        tests=("tests/test_health.py",),
        mutants=(
            Mutant(
                "if self.reason is None or now >= self.retry_at:  # else",
                "if True:  # else",
                "ten calls that fail together wait for minutes",
            ),
            Mutant("if self.num_failures else 0.0", "if True else 0.0", "one hiccup and nobody asks"),
            Mutant("self.num_failures - 1, 20", "self.num_failures, 20", "the first wait is twice as long"),
            Mutant("min(self.num_failures - 1, 20)", "self.num_failures - 1", "a number too large for a clock"),
            Mutant(
                "min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**doublings)",
                "FIRST_WAIT_S * 2**doublings",
                "a disk that comes back is not asked",
            ),
            Mutant("        self.num_failures = 0", "        pass", "a recovered tier waits as long as before"),
            Mutant("        self.reason = reason", "        self.reason = self.reason or reason", "an old reason"),
            Mutant(
                "return self.reason is None or now >= self.retry_at",
                "return self.reason is None",
                "a tier that failed once is never asked again",
            ),
            Mutant(
                "return self.reason is None or now >= self.retry_at",
                "return now >= self.retry_at",
                "a tier that works waits",
            ),
        ),
    ),
    Group(
        file="kvtier/core.py",
        tests=("tests/test_core.py", "tests/test_store_policies.py"),
        mutants=(
            Mutant(
                "isinstance(error, TierFullError | BlockRefusedError | TierClosedError)",
                "isinstance(error, TierClosedError)",
                "a full tier is not asked",
            ),
            Mutant("            self._ailing = True\n", "", "a tier that cannot write is never written to again"),
            Mutant(
                "            self._ailing = True\n            self._tell_placement(tier)",
                "            self._ailing = True",
                "a tier that failed is planned with",
            ),
            Mutant("self._breakers[tier][doing].worked()", "pass", "a tier that works again is called degraded"),
            Mutant(
                "self._ailing = any(not each.works for both in self._breakers for each in both.values())",
                "self._ailing = False",
                "one way to recover is taken for both",
            ),
            Mutant("acquire(blocking=False)", "acquire()", "every thread waits for one that follows"),
            Mutant("self._following.release()", "pass", "nobody follows any more"),
            Mutant(
                'if not self._breakers[tier]["read"].may_try(time.monotonic()):',
                "if False:",
                "a tier that is gone is asked before every verb",
            ),
            Mutant(
                'self.failed(tier, exc, "read")\n            return []',
                'self.failed(tier, exc, "write")\n            return []',
                "what cannot be read is served",
            ),
            Mutant('self.worked(tier, "read")\n        return', "return", "a tier that answers is called degraded"),
            Mutant("(0 if tier else self._set_aside_blocks)", "0", "places set aside are planned with"),
            Mutant("(0 if tier else self._set_aside_blocks)", "self._set_aside_blocks", "places are missing on disk"),
            Mutant(
                "if news.listing is not None:\n                moves",
                "if False:\n                moves",
                "a listing is ignored",
            ),
            Mutant("self.placement.discover(tier, news.added)", "pass", "what others brought is not served"),
            Mutant(
                "moves = self.placement.vanish(tier, news.dropped)", "moves = []", "what others took away is served"
            ),
            Mutant(
                "if moves or news.listing is not None or news.added or news.dropped:",
                "if moves:",
                "a put that waits for places is not woken",
            ),
            Mutant("if not told and isinstance(asked", "if isinstance(asked", "a failure is hidden behind a hindrance"),
            Mutant(
                'readable=both["read"].may_try(now)',
                'readable=both["write"].may_try(now)',
                "a full disk cannot be read",
            ),
            Mutant("if self._ailing:", "if False:", "a wait never ends"),
            Mutant(
                "self.placement.resize(tier, max(0, room))", "pass", "a file that cannot grow is planned as if it could"
            ),
            Mutant("self._expire() if self.placement.expires else []", "[]", "nothing expires"),
            Mutant('self.metrics.add("expired_blocks", len(moves))', "pass", "nobody knows what expired"),
        ),
    ),
    Group(
        file="kvtier/neighbours.py",
        tests=("tests/test_neighbours.py",),
        mutants=(
            Mutant(
                'if hit.num_blocks or hit.stopped_by != "not_held":',
                'if hit.stopped_by != "not_held":',
                "the end of a hit is explained by others",
            ),
            Mutant("if held:", "if True:", "every miss is another namespace's"),
            Mutant('record.get("salted", True)', 'record.get("salted", False)', "a tenant is named"),
            Mutant('if not record.get("salted", True):', "if True:", "a tenant is named"),
            Mutant("if not isinstance(tier, SharedTier):", "if False:", "memory is asked for namespaces"),
            Mutant("{**ours, **theirs}", "ours", "a setting that only they have is not named"),
            Mutant("{**ours, **theirs}", "theirs", "a setting that only we have is not named"),
            Mutant(
                "held for {theirs.get(name)!r}, asked for {ours",
                "held for {ours.get(name)!r}, asked for {ours",
                "the wrong setting is named",
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/directory.py",
        tests=("tests/tiers/test_directory.py", "tests/tiers/test_environment.py"),
        mutants=(
            Mutant("while not _locked(turn, fcntl.LOCK_EX):", "while False:", "two open at once"),
            Mutant(
                "            yield\n            fcntl.flock(turn, fcntl.LOCK_UN)  # explicitly",
                "            yield\n            pass  # explicitly",
                "a forked child keeps everybody out",
            ),
            Mutant("alone = _locked(held, fcntl.LOCK_EX)\n", "alone = True\n", "a file in use is set aside"),
            Mutant("if not _locked(held, fcntl.LOCK_SH):", "if False:", "a file being repaired is joined"),
            Mutant(
                "is_alone = _locked(turn, fcntl.LOCK_EX) and self.exclusive()",
                "is_alone = self.exclusive()",
                "who is about to open is not seen",
            ),
            Mutant(
                "if is_alone and self._held is not None:",
                "if False:",
                "who asks keeps everybody out",
            ),
            Mutant("_locked(self._held, fcntl.LOCK_SH)  # an attempt", "pass  # an attempt", "who asks loses its lock"),
            Mutant(
                "            with suppress(OSError):\n                fcntl.flock(self._held, fcntl.LOCK_UN)\n",
                "",
                "a forked child keeps a lock of one who left",
            ),
            Mutant("            self._held = None\n", "", "a second leave closes somebody's file"),
            Mutant(
                "return os.path.samestat(self.data.stat(), self.state())",
                "return self.data.exists()",
                "another file is taken for the open one",
            ),
            Mutant("self.data.replace(self.path / DAMAGED)", "self.data.unlink()", "a damaged file is lost"),
            Mutant(
                "return found if isinstance(found, dict) else {}",
                "return found",
                "a marker of another kind is an error",
            ),
            Mutant("                file.truncate()\n", "", "a marker ends in what an older one said"),
            Mutant(
                "os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)\n            with",
                "os.O_CREAT | os.O_CLOEXEC, 0o600)\n            with",
                "a marker is written through a link",
            ),
            Mutant(
                "flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW",
                "flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC",
                "data is written through a link",
            ),
            Mutant("if lock is None or self.marker", "if self.marker", "two lock files, two writers"),
            Mutant('self.marker().get("lock") != lock:', "False:", "two lock files, two writers"),
            Mutant(
                "os.posix_fallocate(lock, 0, num_bytes)",
                "os.ftruncate(lock, num_bytes)",
                "a full disk ends the process",
            ),
            Mutant("if self.path.is_symlink():", "if False:", "a link is followed"),
            Mutant(
                "if found - _OURS and DATA not in found:",
                "if found - _OURS:",
                "a note in the directory keeps the store out",
            ),
            Mutant("if found - _OURS and DATA not in found:", "if False:", "somebody's directory is taken"),
            Mutant("if kind in NETWORK_FILE_SYSTEMS:", "if False:", "two hosts write to one file"),
            Mutant("& 0o022 and any", "& 0o002 and any", "the group can forge blocks"),
            Mutant("            self.path.chmod(0o700)", "            pass", "others can look in"),
            Mutant("(self.path / name).chmod(0o600)", "pass", "others can read blocks"),
            Mutant("if stat.S_ISLNK(state.st_mode):", "if False:", "a link is followed"),
            Mutant("len(point) >= len(best)", "len(point) < len(best)", "the outermost mount counts"),
            Mutant(
                "            if exc.errno in _PASSING:\n                raise\n            raise ConfigError(f",
                "            raise ConfigError(f",
                "too many open files are the directory's fault",
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/about.py",
        tests=("tests/tiers/test_environment.py",),
        mutants=(
            Mutant(
                "return all(marker.get(name)",
                "return any(marker.get(name)",
                "another's environment is taken for a damaged one",
            ),
            Mutant(
                'if about["format"] != FORMAT_VERSION:  # ref', "if False:  # ref", "a newer format is read as this one"
            ),
            Mutant("if found != wanted:", "if False:", "blocks of another size are read"),
            Mutant("!= BOOKS.size:", "< 0:", "an environment without books is used"),
            Mutant(
                'if not isinstance(about, dict) or "format" not in about:',
                "if not isinstance(about, dict):",
                "any dict is kvtier's",
            ),
            Mutant("isinstance(size, int) and 0 < size < 2**32", "isinstance(size, int)", "a slab of no slots"),
        ),
    ),
    Group(
        file="kvtier/tiers/journal.py",
        tests=("tests/tiers/test_journal.py", "tests/tiers/test_disk.py", "tests/test_sharing.py"),
        mutants=(
            Mutant("if bytes(line[:WRITER_BYTES]) == env.writer:", "if False:", "own commits come back as news"),
            Mutant("in range(commit + 1, env", "in range(commit, env", "the last commit seen is told again"),
            Mutant("env.books_in(txn).commit + 1):", "env.books_in(txn).commit):", "the newest commit is not told"),
            Mutant(
                "if line is None:\n            return None",
                "if line is None:\n            continue",
                "what was cut off is passed over",
            ),
            Mutant(
                "except ValueError:\n            return None",
                "except ValueError:\n            continue",
                "a damaged line is passed over",
            ),
            Mutant("self.number - JOURNAL_COMMITS)", "self.number - JOURNAL_COMMITS - 1)", "one line more than said"),
            Mutant(
                "if not self.changed and not self._announced:", "if not self.changed:", "a new capacity is not written"
            ),
            Mutant("except struct.error:", "except KeyError:", "what others took away is an error"),
            Mutant("if not self.changed and not self._announced:", "if False:", "a commit of nothing"),
            Mutant("- self._others_gone + sum", "+ sum", "what was no name counts for ever"),
            Mutant("if each.added else -1", "if each.added else 0", "what is gone counts for ever"),
            Mutant("if len(key) == HASH_BYTES:", "if True:", "what is no name goes into the journal"),
            Mutant("Change(False, slot, key)", "Change(True, slot, key)", "what went is told as come"),
            Mutant(
                "bool(self._changes) or self._others_gone > 0",
                "bool(self._changes)",
                "what was no name counts for ever",
            ),
            Mutant(
                "        self._capacity_blocks = capacity_blocks\n", "        pass\n", "a new capacity is not written"
            ),
            Mutant("int(time.time()) & 0xFFFFFFFF", "0", "nobody knows when a block came"),
            Mutant(
                "except (struct.error, ValueError, KeyError, TypeError):",
                "except KeyError:",
                "a damaged line keeps the store from opening",
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/slots.py",
        tests=("tests/tiers/test_slots.py",),
        mutants=(
            Mutant(
                "self._left[0][0] <= oldest_reader:",
                "self._left[0][0] < oldest_reader:",
                "a reader that cannot see the block holds it up",
            ),
            Mutant(
                "self._left[0][0] <= oldest_reader:",
                "self._left[0][0] <= oldest_reader + 1:",
                "a slot is written under a reader",
            ),
            Mutant("self._left[0][0] <= oldest_reader:", "True:", "nobody waits for readers"),
            Mutant("if self._left_at.get(slot) == commit)", ")", "another process's slot is written over"),
            Mutant("self._left_at.pop(slot, None)", "pass", "another process's slot is written over"),
            Mutant("self._left_at[slot] = commit", "pass", "what was left is never free"),
            Mutant("if count > self._counts[_FREE]:", "if False:", "slot -1 is written"),
            Mutant("self._lowest = min(self._lowest, slot)", "pass", "the file is not dense"),
            Mutant("self._lowest = slot + 1", "self._lowest = slot + 2", "a free slot is passed over"),
            Mutant(
                "max(0, count - len(self._states))",
                "count - len(self._states)",
                "fewer slots than there are are an error",
            ),
            Mutant(
                "self._counts[_FREE] + self._counts[_LEFT]",
                "self._counts[_FREE]",
                "the file grows though slots are left",
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/slabs.py",
        tests=("tests/tiers/test_slabs.py", "tests/tiers/test_volume.py"),
        mutants=(
            Mutant("free[used[used < len(free)]] = False", "pass", "a slot in use is written over"),
            Mutant(" and _HEADER.unpack(found) == wanted", "", "any page is taken for a slab"),
            Mutant(
                "self._starts.append(start if there else self._search(number, token))",
                "self._starts.append(start)",
                "a slab is looked for where it is not",
            ),
            Mutant(
                "there = start and self._begins_at(start - PAGE_BYTES, number, token)",
                "there = start",
                "a place is believed",
            ),
            Mutant(
                "                self._unwritten[number] = _PLACE.pack(start, token)\n", "", "a place found is not kept"
            ),
            Mutant("commit.put(_NUMBER.pack(number), place, self._env.places)", "pass", "a place found is not kept"),
            Mutant("if self._starts[number] is not None else 0", "if True else 0", "slots of a lost slab are free"),
            Mutant("start + at * self.layout.slot_bytes", "start", "all records in one slot"),
            Mutant(
                "return self._seen[place:end] if answer.value & 1 else None",
                "return self._seen[place:end]",
                "a cold record is read page by page",
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/growth.py",
        tests=("tests/tiers/test_volume.py", "tests/tiers/test_disk.py"),
        mutants=(
            Mutant(
                "2 ** min(self._num_failures, _LONGEST_DOUBLINGS)", "1", "a disk over quota is tried every few seconds"
            ),
            Mutant(
                "min(self._num_failures, _LONGEST_DOUBLINGS)",
                "self._num_failures",
                "a disk over quota is never tried again",
            ),
            Mutant("        self._num_failures = 0\n\n", "\n", "the first wait is as long as the last was"),
            Mutant(
                "if self._has_space():\n                    self._reason",
                "if True:\n                    self._reason",
                "a full disk counts as one with space",
            ),
            Mutant("self._retry_at = now + NO_GROWTH_S", "pass", "a full disk is looked at before every verb"),
            Mutant("if not self._has_space():", "if False:", "the floor of free space is ignored"),
            Mutant("            self._reason = exc.reason\n", "", "nobody knows why the file does not grow"),
            Mutant(
                "        self._reason = None\n        self._num_failures = 0",
                "        self._num_failures = 0",
                "a file that grew is called full",
            ),
        ),
    ),
    Group(
        file="kvtier/tiers/volume.py",
        tests=("tests/tiers/test_volume.py", "tests/tiers/test_disk.py", "tests/test_sharing.py"),
        mutants=(
            Mutant("if now == self._stamp:\n            return None\n        with", "with", "own writes are looked at"),
            Mutant(
                "structural_problem(self.env.data) if alone else None",
                "structural_problem(self.env.data)",
                "another's write is taken for damage",
            ),
            Mutant("if problem is None:  # records", "if True:  # records", "a damaged tree ends the process"),
            Mutant("self.env.done_trying()", "pass", "who looked keeps writers out"),
            Mutant(
                "            self._stamp = self.env.directory.state().st_mtime_ns\n        if commit.changed:",
                "            pass\n        if commit.changed:",
                "own writes are looked at",
            ),
            Mutant(
                "return capacity if self.hindrance is None else",
                "return capacity if True else",
                "a file that cannot grow is planned as if it could",
            ),
            Mutant("else min(capacity, self._usable_slots())", "else self._usable_slots()", "more room than the cap"),
            Mutant("reachable - self._num_quarantined - ", "reachable - ", "slots kept back count as room"),
            Mutant("or self._num_quarantined >= self._most_lost():", ":", "damage eats up the file"),
            Mutant("        self._num_quarantined += 1\n", "", "damage eats up the file"),
            Mutant(
                "self._num_quarantined = len(bad)",
                "self._num_quarantined = 0",
                "damage eats up the file, restart by restart",
            ),
            Mutant(
                "max(_QUARANTINE_LEAST, self.slots.num // _QUARANTINE_SHARE)",
                "_QUARANTINE_LEAST",
                "a large file keeps nothing back",
            ),
            Mutant(
                "np.concatenate([found.slots, np.array(bad, np.uint32)])",
                "found.slots",
                "a slot in quarantine is written after a restart",
            ),
            Mutant("commit.quarantine(slot, reason)", "pass", "a quarantine ends with the process"),
            Mutant("self.env.forget_dead_readers()", "pass", "a dead reader holds blocks up for ever"),
            Mutant("or self._kept_back(commit, slot):", ":", "a bad place is written again"),
            Mutant("self.slots.occupy([change.slot])", "pass", "two processes write to one slot"),
            Mutant("elif change.slot < self.slots.num:", "else:", "a slot that is none is an error"),
            Mutant("self.slots.leave([change.slot], commit.id - 1)", "pass", "what others dropped is never used again"),
            Mutant("            self.opening = None\n", "            pass\n", "a first scan tells what was"),
            Mutant("if used + num_new > capacity:", "if used > capacity:", "over capacity"),
            Mutant("slot not in self._unwritable", "True", "a place that cannot be written is tried for ever"),
        ),
    ),
    Group(
        file="kvtier/tiers/disk.py",
        tests=(
            "tests/tiers/test_volume.py",
            "tests/test_mending.py",
            "tests/tiers/test_disk.py",
            "tests/test_sharing.py::test_what_another_process_puts_is_seen_and_read",
        ),
        mutants=(
            Mutant("self._broken = problem\n", "pass\n", "a removed file is never opened anew"),
            Mutant(
                "if self._broken is not None:\n            self._mend()",
                "if False:\n            self._mend()",
                "a broken tier is used",
            ),
            Mutant(
                "self._told.everything, self._told.anew = False, True",
                "pass",
                "the store believes in what the old file held",
            ),
            Mutant("self._told.everything = False  # what", "pass  # what", "what could not be deleted is forgotten"),
            Mutant("self._told.anew = False, True", "self._told.anew = False, False", "late writes are believed"),
            Mutant("False, told.anew or anew", "False, told.anew", "that the file is another one is forgotten"),
            Mutant("anew, told.anew = told.anew, False", "anew = told.anew", "the file is another one for ever"),
            Mutant(
                "for namespace in self._known:", "for namespace in ():", "a new file does not say whose its blocks are"
            ),
            Mutant(
                "(room, last) == (told.room_blocks, told.last_commit)",
                "last == told.last_commit",
                "room that shrank is not told",
            ),
            Mutant(
                "(room, last) == (told.room_blocks, told.last_commit)",
                "room == told.room_blocks",
                "what others do is not told",
            ),
            Mutant(
                "told.room_blocks, told.last_commit = room, last\n",
                "told.last_commit = last\n",
                "room is told for ever",
            ),
            Mutant("self._told.used_blocks = volume.env.books.blocks", "pass", "nobody knows what is used"),
            Mutant("self._told.room_blocks = self._volume.room_blocks", "pass", "there is always news"),
            Mutant("volume.suspect(BlockHash(error.key), error.reason)", "pass", "a bad place is written again"),
            Mutant(
                "return self._broken or self._volume.hindrance",
                "return self._volume.hindrance",
                "a broken tier looks well",
            ),
            Mutant("if root != namespace.root]", "]", "a namespace is its own neighbour"),
        ),
    ),
    Group(
        file="kvtier/tiers/mapguard.py",
        tests=("tests/tiers/test_mapguard.py",),
        mutants=(
            Mutant("start <= address", "start < address", "the first byte of a map is not watched"),
            Mutant("address < stop", "address <= stop", "the map behind is watched"),
            Mutant("guard.hit = True", "pass", "zeros are taken for what the file holds"),
            Mutant("_state.action is not None:", "False:", "a foreign fault never ends"),
            Mutant("if code <= 0:", "if code < 0:", "a signal that was sent is lost"),
            Mutant("(*_state.watched, (start", "((start", "one map is watched at a time"),
            Mutant("each[2] is not self or", "", "to release one map releases another's"),
            Mutant("start not in {None, each[0]}", "False", "to release one map releases all"),
            Mutant("if names == [name]:", "if names:", "every map is watched"),
            Mutant("address // mmap.PAGESIZE * mmap.PAGESIZE", "address", "only the first byte of a page is mended"),
            Mutant("ctypes.byref(_state.before), None)", "None, None)", "a foreign fault never ends"),
        ),
    ),
    Group(
        file="kvtier/doctor/reading.py",
        tests=("tests/tiers/test_mapguard.py",),
        mutants=(
            Mutant("guard.watch_maps_of(data)", "pass", "a page that is gone ends the command"),
            Mutant("guard.release()", "pass", "addresses are watched that may be another's"),
            Mutant("if guard.hit:", "if False:", "zeros are reported as what the file holds"),
        ),
    ),
    Group(
        file="kvtier/tiers/environment.py",
        tests=(
            "tests/tiers/test_environment.py",
            "tests/tiers/test_disk.py",
            "tests/tiers/test_volume.py",
            "tests/tiers/test_mapguard.py",
            "tests/test_sharing.py::test_another_size_is_refused_while_the_directory_is_open_and_taken_afterwards",
            "tests/test_sharing.py::test_without_its_lock_file_a_directory_in_use_is_not_joined",
            "tests/test_sharing.py::test_a_reader_in_another_process_keeps_what_it_reads_from_being_written_over",
        ),
        mutants=(
            Mutant(
                "self.guard.watch_maps_of(self.data)", "pass", "LMDB's look at a page that is gone ends the process"
            ),
            Mutant("self.guard.release()  # before", "pass  # before", "addresses are watched that may be another's"),
            Mutant("if self.guard.hit:  # mean", "if False:  # mean", "what was read as zeros is returned"),
            Mutant("self.check_whole()  # or what", "pass  # or what", "what was made of zeros is kept"),
            Mutant(
                " if self.guard.hit else None", " if False else None", "a page that could not be read is overlooked"
            ),
            Mutant("if state.st_nlink == 0:", "if False:", "blocks go to a file that nobody finds again"),
            Mutant("if state.st_size < self._whole_bytes:", "if False:", "a cut file ends the process"),
            Mutant("            self._prove_sound()\n", "            pass\n", "a damaged file ends the process"),
            Mutant(
                "self.directory.renew_lock_file(_LOCK_BYTES)",
                "pass",
                "a full disk ends the process through the reader table",
            ),
            Mutant("            self.directory.check_joinable()", "            pass", "two lock files, two writers"),
            Mutant("or not about.is_in(self.directory.marker()):", ":", "another's environment is set aside"),
            Mutant("if written is None:\n", "if False:\n", "somebody's file is set aside"),
            Mutant(
                "if written is not None and written != FORMAT_VERSION:",
                "if False:",
                "a newer release's file is set aside",
            ),
            Mutant(
                "            self._stretch()\n", "            pass\n", "a file cut short is taken for a healthy one"
            ),
            Mutant(
                "if not self.alone and held.capacity_blocks",
                "if False and held.capacity_blocks",
                "two caps for one file",
            ),
            Mutant(
                "if self.alone and held.capacity_blocks",
                "if False and held.capacity_blocks",
                "an old cap holds for ever",
            ),
            Mutant("self._state.wait_for(lambda: self._readers == 0)", "pass", "a file is unmapped under a reader"),
            Mutant("max(map_bytes, self.directory.state().st_size)", "map_bytes", "no room to delete in"),
            Mutant(
                'if "already open" in str(exc):', "if False:", "a second store in one process is called a disk error"
            ),
            Mutant(
                "min((int(snapshot) for snapshot in snapshots",
                "max((int(snapshot) for snapshot in snapshots",
                "a slot is written under the oldest reader",
            ),
            Mutant('if snapshot != "-")', ")", "a reader at rest is an error"),
        ),
    ),
    Group(
        file="kvtier/tiers/structure.py",
        tests=("tests/tiers/test_structure.py",),
        mutants=(
            Mutant("self._check_free(free, commit)", "pass", "a page in use and free is passed"),
            Mutant("if (ruled[1:] <= ruled[:-1]).any():", "if False:", "keys out of order are passed"),
            Mutant("if tree.pad or tree.flags:", "if False:", "trees of another kind are passed"),
            Mutant("if last < 1 or self._end * PAGE_BYTES > self._size:", "if last < 1:", "a file cut short is passed"),
            Mutant(
                "max(metas, key=lambda meta: meta[0])",
                "min(metas, key=lambda meta: meta[0])",
                "the last commit but one is looked at",
            ),
            Mutant('wrong = (heads["number"] != numbers) | ', "wrong = ", "a page in another's place is passed"),
            Mutant(
                "too_long = (at + _NODE_HEAD + key_bytes + value_bytes > PAGE_BYTES) | ",
                "too_long = ",
                "a node that runs out of its page is passed",
            ),
            Mutant(
                "if found != (tree.branch_pages, tree.leaf_pages, tree.entries):",
                "if False:",
                "a tree of another size is passed",
            ),
            Mutant(
                "if ((starts + counts)[turns][:-1] > starts[turns][1:]).any():",
                "if False:",
                "a page in use twice is passed",
            ),
        ),
    ),
    Group(
        file="kvtier/econ/figures.py",
        tests=("tests/econ/test_figures.py",),
        mutants=(
            Mutant('(*_REQUIRED, "lo", "hi")', "_REQUIRED", "bands are lost on disk"),
            Mutant('if fields["unit"] != unit:', "if False:", "a price per month passes for one per hour"),
            Mutant('fields.get(name) is None or fields[name] == ""', "name not in fields", "an empty source is one"),
            Mutant('if fields["kind"] not in KINDS:', "if False:", "a guess passes for a figure"),
            Mutant("not lo <= value <= hi", "False", "a value outside its own band"),
            Mutant("value < 0 or (value == 0 and not may_be_zero)", "value < 0", "a speed of zero"),
            Mutant('unit.startswith("USD") or unit == "s"', 'unit == "s"', "free things are refused"),
            Mutant("isinstance(value, bool) or ", "", "True passes for one dollar"),
            Mutant(" or not math.isfinite(value)", "", "an infinite price"),
            Mutant("{**source, **fields}", "{**fields, **source}", "a figure's own date is ignored"),
        ),
    ),
    Group(
        file="kvtier/econ/tables.py",
        tests=("tests/econ/test_figures.py",),
        mutants=(
            Mutant(".setdefault(name, {}).update(fields)", "[name] = fields", "one new price drops the entry's rest"),
            Mutant("if section not in sections:", "if False:", "a misspelt section is passed over"),
            Mutant("if field not in section.units:", "if False:", "a misspelt field is passed over"),
            Mutant("if not isinstance(raw, str):", "if False:", "a number for a tier"),
            Mutant("if missing:", "if False:", "an entry without its price"),
        ),
    ),
    Group(
        file="kvtier/econ/hardware.py",
        tests=("tests/econ/test_figures.py", "tests/econ/test_worked_example.py"),
        mutants=(
            Mutant("HOURS_PER_MONTH = 730", "HOURS_PER_MONTH = 720", "a month of thirty days"),
            Mutant("years.value * HOURS_PER_YEAR", "HOURS_PER_YEAR", "all paid for in a year"),
            Mutant("self.endurance_dwpd.value * 365 * ", "self.endurance_dwpd.value * ", "a write a year"),
            Mutant("self.rent.value * gb, ", "self.rent.value, ", "a drive of one GB"),
            Mutant("if sum(term is not None for term in terms) != 1:", "if False:", "rented and bought"),
            Mutant(
                "self.hbm_bytes.value / 1e9)\n        return", "self.hbm_bytes.value / 2**30)\n        return", "GiB"
            ),
            Mutant("else figure.lo * factor", "else figure.lo", "a band in another unit than its value"),
        ),
    ),
    Group(
        file="kvtier/econ/parameters.py",
        tests=("tests/econ/test_models.py",),
        mutants=(
            Mutant("tables = 1 if", "tables = 2 if", "tied embeddings count twice"),
            Mutant("family.norms * hidden)", "0)", "norms are forgotten"),
            Mutant("chosen * one", "experts * one", "every expert is met"),
            Mutant("n >= first and ", "", "dense layers at the head are forgotten"),
            Mutant("n not in dense and ", "", "dense layers in between are forgotten"),
            Mutant("(n + 1) % step == 0", "n % step == 0", "the wrong layers are dense"),
            Mutant(
                'fields.count("n_shared_experts") * 3 ', '0 * fields.count("n_shared_experts") * 3 ', "shared experts"
            ),
            Mutant("family.expert_bias * (2 * width + hidden)", "0", "biases of experts"),
            Mutant(
                "router = experts * (hidden + family.expert_bias)", "router = experts * hidden", "bias of the router"
            ),
            Mutant(" + family.sinks * heads", "", "attention sinks"),
            Mutant("qk_norm * 2 * size", "0", "norms of queries and keys"),
            Mutant("qkv_bias * (q_width + 2 * kv_width)", "0", "biases of queries"),
            Mutant("(said and family.out_bias) * hidden", "0", "bias of the output"),
            Mutant("latent * heads * (nope + value)", "latent * heads * nope", "values are not expanded"),
            Mutant("+ bias * (latent + rope)", "", "bias of the latent"),
            Mutant("+ rank + rank * q_width", "+ rank * q_width", "norm of the queries' latent"),
            Mutant("dense += 2 * ", "dense += ", "biases of a dense MLP"),
            Mutant("isinstance(value, bool) or not isinstance(value, int) or value < 1", "value < 1", "half a layer"),
            Mutant("not isinstance(value, int) or value < 0:", "not isinstance(value, int):", "minus one expert"),
        ),
    ),
    Group(
        file="kvtier/econ/models.py",
        tests=("tests/econ/test_models.py",),
        mutants=(
            Mutant("2 * kv_heads(fields) * size, 4", "kv_heads(fields) * size, 4", "keys without values"),
            Mutant("* size, 4 * heads * size", "* size, 2 * heads * size", "attention at half its work"),
            Mutant("numbers, flop = latent + rope, ", "numbers, flop = latent, ", "the key's position is not cached"),
            Mutant("2 * heads * (nope + rope + value)", "2 * heads * (nope + rope)", "values cost nothing"),
            Mutant("return tokens * tokens / 2", "return tokens * tokens", "no causal mask"),
            Mutant("window * window / 2 + (tokens", "window * window + (tokens", "the mask inside a window"),
            Mutant("if g.window_tokens is None)", ")", "windows grow without end"),
            Mutant("min(num_tokens, g.window_tokens or num_tokens)", "num_tokens", "a window that never fills up"),
            Mutant("2.0 * self.active_params * (stop", "2.0 * self.total_params * (stop", "idle experts compute"),
            Mutant(
                "(pattern and (n + 1) % pattern == 0)", "(pattern and n % pattern == 0)", "other layers have windows"
            ),
            Mutant("n < first or ", "", "layers below the first window have one"),
            Mutant('not kind.startswith("qwen")', "True", "a window that is switched off"),
            Mutant("if not wanted or ", "if ", "a window that is switched off in the config"),
            Mutant("if len(types) != layers:", "if False:", "types of other layers"),
            Mutant(
                '{"model_type": f"{config.get(\'model_type\')}_text", **text}', "dict(text)", "the text part's family"
            ),
            Mutant('"mxfp4": 0.53125', '"mxfp4": 0.5', "scales weigh nothing"),
        ),
    ),
    Group(
        file="kvtier/econ/curve.py",
        tests=("tests/econ/test_profile.py",),
        mutants=(
            Mutant(" + interpolate(num_tokens, self._tokens, self._residuals)", "", "measured points are not met"),
            Mutant(" + self.coefficients[0]", "", "a rest is launched for nothing"),
            Mutant("(found >= 0).all() and ", "", "time runs backwards"),
            Mutant("/ t[:, None]", "", "long prompts drown short ones"),
            Mutant(
                "if right == len(xs):\n        return ys[-1]",
                "if right == len(xs):\n        return ys[0]",
                "the last band",
            ),
            Mutant("if num_tokens < 1:", "if num_tokens < 0:", "no tokens take a launch"),
        ),
    ),
    Group(
        file="kvtier/econ/profile.py",
        tests=("tests/econ/test_profile.py",),
        mutants=(
            Mutant(
                "max(self.pass_s, self._curve.span(start_tokens, stop_tokens))",
                "self._curve.span(start_tokens, stop_tokens)",
                "no floor",
            ),
            Mutant(
                "[p.lo / p.mid for p in self.prefill]", "[p.lo for p in self.prefill]", "a band of seconds as a ratio"
            ),
            Mutant("stop_tokens > self.prefill[-1].tokens", "stop_tokens >= self.prefill[-1].tokens", "the last point"),
            Mutant("min(num_tokens, self.window_tokens)", "num_tokens", "a window without end"),
            Mutant("(fast, speed, slow)", "(slow, speed, fast)", "the band is upside down"),
            Mutant("wait + size / rate", "size / rate", "no latency"),
            Mutant(".value / 3600 * seconds", ".value * seconds", "an hour's price a second"),
            Mutant(".value / 3600 * num_bytes / 1e9 * seconds", ".value / 3600 * num_bytes / 2**30 * seconds", "GiB"),
            Mutant(
                "tier.wear_usd_per_gb.value * tier.write_amplification.value", "tier.wear_usd_per_gb.value", "no WAF"
            ),
            Mutant("return (wear + fee) *", "return wear *", "fees for writing"),
            Mutant(" + fee * size / 1e9", "", "fees for reading"),
            Mutant('"device" if "device" in self.tiers else "host"', '"host"', "GPU memory for the price of RAM"),
            Mutant("if self.machine != machine:", "if False:", "another machine's profile"),
            Mutant("if versions.get(package) != version:", "if False:", "another version's profile"),
            Mutant("partial.unlink(missing_ok=True)", "pass", "half-written files stay"),
            Mutant(" or before.mid > after.mid", "", "longer prompts take less"),
            Mutant("before.tokens >= after.tokens", "before.tokens > after.tokens", "two points of one length"),
        ),
    ),
    Group(
        file="kvtier/econ/profile_json.py",
        tests=("tests/econ/test_profile.py",),
        mutants=(
            Mutant('raw.get("schema_version") != SCHEMA_VERSION', "False", "a profile of another schema"),
            Mutant('or raw.get("schema") != SCHEMA', "", "any JSON object is a profile"),
            Mutant(" or isinstance(raw[name], bool)", "", "true bytes per token"),
            Mutant('"latency_s": "s"', '"latency_s": "ms"', "another unit"),
            Mutant("except (AttributeError, KeyError, TypeError) as exc:", "except KeyError as exc:", "a traceback"),
        ),
    ),
    Group(
        file="kvtier/econ/derive.py",
        tests=("tests/econ/test_profile.py", "tests/econ/test_worked_example.py"),
        mutants=(
            Mutant("lo=f / hi, mid=f / mid, hi=f / lo", "lo=f / mid, mid=f / mid, hi=f / mid", "no band"),
            Mutant("model.weight_bytes / (gpus * gpu.hbm_bytes_per_s.value)", "0.0", "a pass for nothing"),
            Mutant("min(total, link, key", "max(total, link, key", "drives outrun the link"),
            Mutant("_times(hourly, count, ", "_times(hourly, 1, ", "drives for the price of one"),
            Mutant('_times(gpu.usd_per_hour, gpus, "GPUs")', "gpu.usd_per_hour", "GPUs for the price of one"),
            Mutant("if medium.tier in tiers:", "if False:", "the last medium wins"),
            Mutant("_WEIGHT_SHARE = 0.75", "_WEIGHT_SHARE = 1.0", "no room for KV"),
            Mutant("window_tokens=model.window_tokens", "window_tokens=0", "windows are forgotten"),
            Mutant("if not 0 < mfu <= 1:", "if not 0 < mfu:", "faster than the peak"),
        ),
    ),
    Group(
        file="kvtier/econ/formulas.py",
        tests=("tests/econ/test_worked_example.py", "tests/econ/test_ledger.py"),
        mutants=(
            Mutant("return num_gpus * peak_flop_per_s", "return peak_flop_per_s", "one GPU of many"),
            Mutant(
                "return usd_per_hour / 3600 / tokens_per_s * 1e6",
                "return usd_per_hour / 3600 * tokens_per_s",
                "upside down",
            ),
            Mutant("return bytes_per_token * tokens_per_s", "return bytes_per_token / tokens_per_s", "upside down"),
            Mutant("device_usd_per_hour / 3600\n", "device_usd_per_hour\n", "an hour for a second"),
            Mutant("gpu_usd_per_hour / 3600\n", "gpu_usd_per_hour\n", "an hour for a second"),
            Mutant("/ 3600 * request_s", "/ 3600", "requests of one second"),
            Mutant('"stall": stall_usd_per_mtok}', '"stall": 0.0}', "waiting costs nothing"),
            Mutant("return power_w / tokens_per_s * 1e6 / 1e3", "return power_w / tokens_per_s * 1e6", "J for kJ"),
            Mutant(
                "bytes_per_token * 1e6 / read_bytes_per_s / 1e3", "bytes_per_token * 1e6 / read_bytes_per_s", "J for kJ"
            ),
            Mutant("if not (math.isfinite(value) and value > 0):", "if not value > 0:", "infinite speed"),
            Mutant("if not (math.isfinite(value) and value >= 0):", "if not math.isfinite(value):", "negative prices"),
            Mutant("if mfu > 1:", "if False:", "faster than the peak"),
        ),
    ),
    Group(
        file="kvtier/econ/keeping.py",
        tests=("tests/econ/test_worked_example.py", "tests/econ/test_ledger.py"),
        mutants=(
            Mutant(
                "return bytes_per_token * 1e6 / 1e9 * usd_per_gb_hour",
                "return bytes_per_token * usd_per_gb_hour / 1e9",
                "a token",
            ),
            Mutant("rent_usd_per_mtok_hour * 3600 if", "rent_usd_per_mtok_hour if", "hours for seconds"),
            Mutant(
                "1e9 / bytes_per_s_below - 1e9 / bytes_per_s_above",
                "1e9 / bytes_per_s_below",
                "a tier above that is instant",
            ),
            Mutant("read_below_usd_per_gb + stalled", "stalled", "drives read for nothing"),
            Mutant(
                "(rent_above_usd_per_gb_hour - rent_below_usd_per_gb_hour) / 3600",
                "rent_above_usd_per_gb_hour / 3600",
                "the lower rent is saved",
            ),
            Mutant("max(0.0, saved_usd) / extra_rent", "saved_usd / extra_rent", "negative times"),
            Mutant(
                "return rent_usd_per_mtok_hour / saving if saving > 0",
                "return rent_usd_per_mtok_hour / saving if saving",
                "a loss worth keeping",
            ),
            Mutant("usd_per_gb * write_amplification /", "usd_per_gb /", "no write amplification"),
            Mutant(
                "(wear_usd_per_mtok + rent_usd_per_mtok) / saving", "wear_usd_per_mtok / saving", "holding for nothing"
            ),
            Mutant("max(days, 1 / dwpd)", "days", "writes do not wear"),
        ),
    ),
    Group(
        file="kvtier/econ/tariffs.py",
        tests=("tests/econ/test_tariffs.py",),
        mutants=(
            Mutant(
                "return max(0.0, write - 1) / (1 - read)",
                "return max(0.0, write) / (1 - read)",
                "the first input is free",
            ),
            Mutant("if read < 1 else math.inf", "if read != 1 else 0.0", "reads that save nothing pay at once"),
            Mutant("- 1 - 1e-9) - 1)", "- 1 - 1e-9))", "one ping too many"),
            Mutant("- 1 - 1e-9) - 1)", "- 1 + 1e-9) - 1)", "pings up to the same price"),
            Mutant(
                "(most_pings(write=write, read=read) + 1) * ttl_s",
                "most_pings(write=write, read=read) * ttl_s",
                "the last life",
            ),
            Mutant("lost = write_short - read", "lost = write_short", "the read is saved"),
            Mutant("max(0.0, input_usd - read_usd)", "input_usd", "reads are free"),
            Mutant("num_calls * (write - read) - write", "num_calls * (write - read)", "the warm-up is free"),
        ),
    ),
    Group(
        file="kvtier/econ/prices.py",
        tests=("tests/econ/test_figures.py",),
        mutants=(
            Mutant(
                "return self.cached_read.value / self.input.value",
                "return self.cached_read.value",
                "a price as a share",
            ),
            Mutant("return self.write.value / self.input.value", "return self.write.value", "a price as a multiple"),
            Mutant("if not prices and self.read_share is None:", "if False:", "a price without a price"),
            Mutant("self.input.value == 0", "self.input.value < 0", "a share of nothing"),
            Mutant("{key, price.provider, key.partition", "{key, key.partition", "a provider is unknown"),
        ),
    ),
    Group(
        file="kvtier/econ/ledger.py",
        tests=("tests/econ/test_ledger.py",),
        mutants=(
            Mutant(
                "self.read_usd + self.write_usd + self.rent_usd + self.occ",
                "self.read_usd + self.rent_usd + self.occ",
                "writing is free",
            ),
            Mutant(
                "return self.recompute_usd + self.occupancy_usd",
                "return self.recompute_usd",
                "a recompute fills no memory",
            ),
            Mutant(
                "(self.hit_usd + self.stall_usd) / self.miss_usd", "self.hit_usd / self.miss_usd", "waiting is free"
            ),
            Mutant("if self.saves_usd <= 0:", "if self.saves_usd < -1e9:", "nothing ever loses"),
            Mutant("self.saves_usd <= self.stall_usd", "False", "a stall is never a loss"),
            Mutant('"may lose" if self.saves_lo_usd <= 0 else "saves"', '"saves"', "bands are passed over"),
            Mutant(
                "write_usd = _write_usd(profile, tier, tokens) / reuses",
                "write_usd = _write_usd(profile, tier, tokens)",
                "each hit writes",
            ),
            Mutant("size, hold_s) / reuses", "size, hold_s)", "each hit pays all the rent"),
            Mutant("read_usd * load.hi / load.mid", "read_usd", "reads have no band"),
            Mutant(
                "profile.compute_usd(recompute.lo) -", "profile.compute_usd(recompute.mid) -", "recomputes have no band"
            ),
            Mutant("saving = max(0.0, recompute - read)", "saving = recompute", "a read is free"),
            Mutant("gb = profile.prefix_bytes(tokens) / 1e9", "gb = 1.0", "a prefix of one GB"),
            Mutant("if stalled else 0.0,", ",", "loads never overlap"),
            Mutant("not math.isfinite(value) else value", "False else value", "no JSON"),
            Mutant("recompute.mid / load.mid", "load.mid / recompute.mid", "upside down"),
            Mutant("key=lambda price: price.share", "key=lambda price: price.name", "list prices out of order"),
        ),
    ),
    Group(
        file="kvtier/commands/profiles.py",
        tests=("tests/econ/test_cost_command.py",),
        mutants=(
            Mutant("if not args.any_machine:", "if False:", "another machine's profile"),
            Mutant(
                "getattr(args, name) is not None]", "getattr(args, name)]", "--mfu 0 is passed over beside a profile"
            ),
        ),
    ),
    Group(
        file="kvtier/econ/billing/meter.py",
        tests=("tests/econ/test_billing_rules.py", "tests/econ/test_billing_properties.py"),
        mutants=(
            Mutant("self._until[call.ids] >= call.time_s", "self._until[call.ids] > call.time_s", "a second less"),
            Mutant(" & (self._usable[call.ids] <= call.time_s)", "", "calls in parallel hit"),
            Mutant("<= call.time_s)", "< call.time_s)", "an answer that has begun is not there"),
            Mutant(
                'if self._rules.entries == "marks":\n            looked',
                "if False:\n            looked",
                "no look-back",
            ),
            Mutant("mark.position + 1 - back, 0)", "mark.position - back, 0)", "a look-back of 21"),
            Mutant("self._rules.look_back if call.in_content_blocks else None", "self._rules.look_back", "of blocks"),
            Mutant("int(found[-1])", "int(found[0])", "the shortest match wins"),
            Mutant("tokens - tokens % self._rules.unit_tokens", "tokens", "hits of half a step"),
            Mutant("if tokens >= self._rules.minimum_tokens else", "if tokens else", "no minimum"),
            Mutant("if tokens >= self", "if tokens > self", "a minimum one too high"),
            Mutant("if self._random.random() >= self._hit_probability:", "if False:", "every call finds its machine"),
            Mutant("hit_probability if rules.routed else 1.0", "hit_probability", "a disk is missed by routing"),
            Mutant("if kept != sorted(kept, reverse=True):", "if False:", "an hour after five minutes"),
            Mutant("len(said) > self._rules.max_marks", "len(said) > 1 + self._rules.max_marks", "five marks"),
            Mutant("(Mark(len(call.ids) - 1),) if call.marks is None", "() if call.marks is None", "no automatic mode"),
            Mutant("if self._units(int(call.ends[mark.position]))]", "]", "a mark too early is paid for"),
            Mutant("                done = end\n", "", "tokens are paid for at each mark"),
            Mutant("done = read\n", "done = 0\n", "what was read is written too"),
            Mutant("now + self._kept_s[used]", "now", "a use refreshes nothing"),
            Mutant("ids[: hit + 1]", "ids[hit : hit + 1]", "a long entry outlives its head"),
            Mutant("        used = used[self._until[used] >= now]\n", "        pass\n", "an expired entry comes back"),
            Mutant("(shared - 1, len(ids) - 1)", "(len(ids) - 1,)", "a common prefix is not seen"),
            Mutant("(shared - 1, len(ids) - 1)", "(shared - 1,)", "the end of a request is no unit"),
            Mutant("            self._seen_s[ids] = now\n", "", "what was sent is not seen"),
            Mutant("if call.reply is not None and self._rules.stores_output:", "if False:", "answers are not stored"),
            Mutant("fresh = ids[until < call.time_s]", "fresh = ids", "parallel calls delay what they share"),
            Mutant("self._first_token_s if call.first_token_s is None else", "self._first_token_s or", "its own time"),
            Mutant("made = not self._until[entry[0]] >= call.time_s", "made = True", "an entry is made at each call"),
            Mutant("position = marks[0].position", "position = marks[-1].position", "the last mark, which moves"),
            Mutant("self._rules.lifetime_s / 3600", "self._rules.lifetime_s / 60", "stored by the minute"),
            Mutant("call._replace(first_token_s=0.0)", "call", "others wait for an entry made before"),
            Mutant("if not 0 <= hit_probability <= 1:", "if not hit_probability <= 1:", "a probability below zero"),
            Mutant("if not first_token_s >= 0:", "if False:", "an answer before its question"),
        ),
    ),
    Group(
        file="kvtier/econ/billing/bills.py",
        tests=("tests/econ/test_billing_rules.py", "tests/econ/test_billing_properties.py"),
        mutants=(
            Mutant("call.input_tokens > prices.long", "call.input_tokens >= prices.long", "long at 200,000"),
            Mutant("factor * usage.read", "usage.read", "reads of a long prompt at half price"),
            Mutant("tariff.lifetimes[name].write", "tariff.lifetimes[tariff.plan].write", "one price for both"),
            Mutant("if call.purpose == CALL else 0.0", "", "pings are dear without a cache"),
            Mutant("if charge.purpose == CALL:", "if True:", "pings count as traffic"),
            Mutant(
                "self.read_usd + self.written_usd + self.uncached_usd + self.storage_usd\n\n    @property\n"
                "    def share",
                "self.read_usd + self.written_usd + self.uncached_usd\n\n    @property\n    def share",
                "a bill without storage",
            ),
            Mutant("call.output_tokens * (prices", "call.input_tokens * (prices", "answers by the prompt"),
            Mutant("factor * plain_usd", "plain_usd", "a long prompt is cheap without a cache"),
            Mutant("self.added_usd += charge.input_usd", "self.added_usd += charge.read_usd * 0", "pings for nothing"),
            Mutant(
                "hit_probability=hit_probability,\n        seed", "hit_probability=1.0,\n        seed", "no routing"
            ),
        ),
    ),
    Group(
        file="kvtier/commands/ledgers.py",
        tests=("tests/econ/test_cost_command.py",),
        mutants=(
            Mutant("if row.speed_up < 1", "if row.speed_up < 0", "slow loads are not named"),
            Mutant('if row.verdict != "saves":', 'if row.verdict == "loses":', "what may lose is not named"),
        ),
    ),
    Group(
        file="kvtier/commands/cost.py",
        tests=("tests/econ/test_cost_command.py",),
        mutants=(Mutant("_check_plot(args.plot)", "pass", "found out at the end"),),
    ),
    Group(
        file="kvtier/econ/crossing.py",
        tests=("tests/econ/test_crossing.py",),
        mutants=(
            Mutant("profile.load_band_s(tier, tokens - 1)", "profile.load_band_s(tier, tokens)", "a hit loads all"),
            Mutant("profile.prefill_band_s(tokens - 1, tokens)", "profile.prefill_band_s(0, 0)", "no last pass"),
            Mutant("if not wins(known[-1]):", "if False:", "a break-even where computing always wins"),
            Mutant("lost = max(", "lost = min(", "the first crossing instead of the last"),
            Mutant("return high", "return low", "the longest prompt that still loses"),
            Mutant("if tokens < longest", "if tokens > 0", "lengths that nobody knows"),
        ),
    ),
    Group(
        file="kvtier/commands/report_answer.py",
        tests=("tests/econ/test_report_answer.py",),
        mutants=(
            Mutant("(row.prompt_tokens, row.reuses, -row.hold_s)", "(-row.prompt_tokens, row.reuses)", "another case"),
            Mutant('"disk" if "disk" in tiers', '"host" if "host" in tiers', "another tier"),
            Mutant('row.verdict != "saves" for row', 'row.verdict == "loses" for row', "what may lose is not counted"),
            Mutant("if saves > 0 else", "if True else", "a loss is called a saving"),
            Mutant("if ratio >= 1 else", "if True else", "slower is called faster"),
            Mutant("if profile.machine is None:", "if False:", "data sheets are called measured"),
            Mutant("if row.extrapolated else", "if False else", "a guess is not marked"),
        ),
    ),
    Group(
        file="kvtier/commands/report.py",
        tests=("tests/econ/test_report_command.py",),
        mutants=(
            Mutant('check_plot(args.html, "--html")', "pass", "work that ends without a page"),
            Mutant("if args.reload is None else", "if True else", "the benchmark is left out"),
            Mutant("if len(found) > 1:", "if False:", "any of several profiles"),
            Mutant("figure.value / raw.value", "raw.value / figure.value", "upside down"),
            Mutant(
                '"energy of a recompute: the power of the machine is not in the profile": profile.power_w is None',
                '"energy of a recompute: the power of the machine is not in the profile": True',
                "missing and there",
            ),
            Mutant('then --reload FILE": reload is None', 'then --reload FILE": False', "missing and not named"),
            Mutant(".resolve() == args.html.resolve()", ".resolve() is args.html", "one file for both"),
        ),
    ),
    Group(
        file="kvtier/commands/report_inputs.py",
        tests=("tests/econ/test_report_command.py",),
        mutants=(
            Mutant('"assumed" if profile.machine is None else "measured"', '"measured"', "nothing was measured"),
            Mutant("if size is None:", "if False:", "sizes given are assumed"),
        ),
    ),
    Group(
        file="kvtier/commands/reloads.py",
        tests=("tests/econ/test_report_command.py",),
        mutants=(
            Mutant("or value <= 0", "", "negative times"),
            Mutant("isinstance(value, bool) or", "", "yes is a number"),
            Mutant('raw.get("benchmark") != _BENCHMARK', "False", "any benchmark's rows"),
            Mutant("or not rows:", ":", "no rows"),
        ),
    ),
    Group(
        file="kvtier/sim/replay.py",
        tests=("tests/sim/test_replay.py",),
        mutants=(
            Mutant("self._now.s = request.time_s", "pass", "time stands still"),
            Mutant("self._future.advance()", "pass", "the future stays where it is"),
            Mutant("self.placement.expires", "False", "nothing expires"),
            Mutant("num_hits + self._held_behind(keys, num_hits)", "num_hits + 1", "hits that are none"),
            Mutant("min(num_hits * tokens, request.input_tokens)", "num_hits * tokens", "more tokens than there were"),
            Mutant("        placement.touch(keys)\n", "        pass\n", "a hit is no use"),
            Mutant("if self.settings.promote and any(match.tiers):", "if any(match.tiers):", "everything comes up"),
            Mutant("placement.worth_writing(Chain(new, labels))", "Chain(new, labels)", "everything is worth it"),
            Mutant(
                "            chain = chain.part(len(new), len(chain))", "            return", "long prompts end early"
            ),
            Mutant("if self.settings.writes_through:", "if True:", "everything is copied down"),
            Mutant("while moves := self.placement.plan_expire():", "if moves := self.placement.plan_expire():", "late"),
            Mutant("and move.key not in lost:", ":", "a block with two copies is lost twice"),
            Mutant("tier.expired += 1", "tier.evicted += 1", "expired blocks made room"),
            Mutant(
                "moves = self.placement.commit(moves)", "self.placement.commit(moves)\n            moves = []", "follow"
            ),
            Mutant("ttl_s=tier.ttl_s", "ttl_s=None", "every block lives for ever"),
            Mutant("refresh=tier.refresh", "refresh=True", "a use always begins the time anew"),
            Mutant("durable=self.settings.keeps(tier)", "durable=True", "every tier keeps its copies"),
            Mutant('tier.admission == "all"', "False", "the optimum lets everything in"),
            Mutant("if self._recompute_s is None else", "if True else", "no policy knows what computing takes"),
            Mutant("load_s=self._load_s.get(tier.name)", "load_s=None", "no admission knows what loading takes"),
            Mutant("if settings.whole_requests:", "if True:", "references are never replayed one by one"),
            Mutant("blocks=[block], input_tokens=1", "blocks=[block]", "each reference has all tokens"),
        ),
    ),
    Group(
        file="kvtier/sim/tally.py",
        tests=("tests/sim/test_costs.py", "tests/sim/test_replay.py"),
        mutants=(
            Mutant(
                "                tiers[dst].written += 1\n                if",
                "                if",
                "what comes up is not written",
            ),
            Mutant(
                "if src is not None:\n                    tiers[src].read += 1", "pass", "what follows reads nothing"
            ),
            Mutant("assert dst is not None\n                tiers[dst].written += 1", "pass", "nothing new is written"),
            Mutant("tiers[dst].written += 1\n                tiers[src]", "tiers[src]", "what sinks is not written"),
            Mutant("tiers[src].read += 1\n                if", "if", "what sinks is not read"),
            Mutant("if nodes[key].dead:", "if True:", "what lies elsewhere is lost"),
            Mutant("if not keep:", "if True:", "a copy counts as a victim"),
            Mutant("tier.read += tier.hits", "pass", "hits read nothing"),
            Mutant("if whole else 0.0", "if True else 0.0", "an empty trace raises"),
            Mutant("of(tally.prefix_hits, tally.references)", "of(tally.block_hits, tally.references)", "two rates"),
            Mutant("of(tally.token_hits, tally.input_tokens)", "of(tally.token_hits, tally.references)", "tokens"),
            Mutant('"lost_blocks": tier.lost', '"lost_blocks": tier.evicted', "every victim is lost"),
            Mutant('"written_bytes": tier.written * block_bytes', '"written_bytes": tier.written', "blocks as bytes"),
        ),
    ),
    Group(
        file="kvtier/sim/settings.py",
        tests=("tests/sim/test_settings.py",),
        mutants=(
            Mutant("if self.capacity_blocks < 1:", "if self.capacity_blocks < 0:", "a tier of nothing"),
            Mutant("if self.name not in TIER_NAMES:", "if False:", "a tier that no profile knows"),
            Mutant("0 < self.ttl_s < float", "0 <= self.ttl_s < float", "blocks that do not live"),
            Mutant("if not names:", "if False:", "a replay without a tier"),
            Mutant("sorted(set(names), key=TIER_NAMES.index)", "list(names)", "tiers in any order"),
            Mutant('self.copies == "inclusive" or ', "", "no memory keeps copies"),
            Mutant('self.copies == "disk" and tier.name', "tier.name", "a disk always keeps its copy"),
            Mutant("and self.tiers[-1].name in _DURABLE", "", "new blocks are copied to memory"),
            Mutant("and len(self.tiers) > 1 and", "and", "a lone disk copies to itself"),
            Mutant('self.write == "on_insertion" and', "", "new blocks are always copied down"),
            Mutant("{1,18}", "+", "a number of any length"),
            Mutant("if text.strip()[-1:].isalpha():", "if True:", "a part of a block"),
            Mutant("if block_bytes is None:", "if False:", "bytes without a model"),
            Mutant("size // block_bytes", "-(-size // block_bytes)", "more than there is room for"),
            Mutant("if len(policies) > 1 or", "if", "two policies for one tier"),
            Mutant('set(options) - {"ttl", "refresh", "admit"}', "False", "what nobody knows is passed over"),
            Mutant("(dict(common or {}) | said)", "(said | dict(common or {}))", "what is common overrules"),
            Mutant('return word == "yes"', "return True", "refresh=no is yes"),
        ),
    ),
    Group(
        file="kvtier/sim/costs.py",
        tests=("tests/sim/test_costs.py",),
        mutants=(
            Mutant("request.input_tokens - found)", "request.input_tokens)", "a short last block is loaded whole"),
            Mutant("            if tier:  # what", "            if True:  # what", "the first tier is loaded from"),
            Mutant("found += tokens", "pass", "everything is computed"),
            Mutant("min(found, request.input_tokens - 1)", "found", "nothing is computed for a whole hit"),
            Mutant("profile.tier(name)", "pass", "a tier that the profile lacks"),
            Mutant("if self._began_s is None else self._began_s", "if True else self._began_s", "rent for no time"),
            Mutant("tally.tiers, strict=True))[1:]", "tally.tiers, strict=True))", "the first tier is paid for twice"),
            Mutant("np.percentile(ttft, 99)", "np.percentile(ttft, 50)", "the median is the tail"),
            Mutant("profile.compute_usd(float(ttft.sum()))", "profile.compute_usd(float(ttft.mean()))", "one request"),
            Mutant("counts.written * block_bytes", "counts.read * block_bytes", "reads wear out"),
            Mutant("profile.prefill_s(0, depth * block_tokens)", "0", "a block costs all before it too"),
            Mutant("max(0.0, 2 * one - two)", "one", "latency is a block's time"),
            Mutant("each = max(1, self.requests)", "each = 1", "a request costs as much as all"),
        ),
    ),
    Group(
        file="kvtier/ruling.py",
        tests=("tests/test_store_policies.py",),
        mutants=(
            Mutant("(0 if rules else set_aside_blocks)", "0", "places set aside are planned with"),
            Mutant("setting, ttl_s=ttl_s)", "setting)", "every block lives for ever"),
            Mutant("Placement(rules, index)", "Placement(rules)", "policies look into another index"),
            Mutant("if len(given) != num_tiers:", "if False:", "rules for tiers that are not there"),
            Mutant("[given] * num_tiers", "[given]", "one tier has rules"),
            Mutant('if admission == "worth_reloading":', "if False:", "an error that speaks of the command line"),
        ),
    ),
    Group(
        file="kvtier/sim/lines.py",
        tests=("tests/sim/test_reading.py", "tests/sim/test_mooncake.py"),
        mutants=(
            Mutant("self.count += 1", "self.count = 1", "malformed lines are not counted"),
            Mutant("if len(data) > MAX_LINE_BYTES:", "if False:", "a line as large as memory"),
            Mutant("packed = raw.read(len(_GZIP)) == _GZIP", "packed = False", "a packed file is read as it is"),
            Mutant("except (ValueError, RecursionError) as exc", "except ValueError as exc", "deep nesting ends it"),
            Mutant("type(value) is not int or not 0 <=", "type(value) is not int or not -9 <=", "negative numbers"),
            Mutant("not 0 <= value <= MAX_SECONDS", "not value <= MAX_SECONDS", "negative times"),
        ),
    ),
    Group(
        file="kvtier/sim/mooncake.py",
        tests=("tests/sim/test_mooncake.py",),
        mutants=(
            Mutant("if request.time_s < now_s", "if request.time_s < 0", "time may run backwards"),
            Mutant("elif before[number] != last", "elif False", "an id may follow any other"),
            Mutant("found.append(number)", "found.append(each)", "ids stay as large as they are"),
            Mutant("{tokens // block_tokens, -(-tokens", "{tokens, -(-tokens", "whole blocks only are refused"),
            Mutant("round(request.time_s * 1000)", "int(request.time_s * 1000)", "times are rounded down"),
        ),
    ),
    Group(
        file="kvtier/sim/agentic.py",
        tests=("tests/sim/test_agentic.py",),
        mutants=(
            Mutant("if keep > held", "if keep > held + 1", "a request keeps what is not there"),
            Mutant("if total > MAX_PROMPT_BLOCKS or", "if", "a run as long as memory"),
            Mutant(
                "first - 1 if skip else self._before[at]", "first - 1 if skip else last", "heads of runs go unchecked"
            ),
            Mutant("first - 1 if skip else self", "last if skip else self", "the middle of a run goes unchecked"),
            Mutant("min(stop, self._stops[at]) - start", "stop - start", "a run goes on past what is known"),
            Mutant("size = min(stop, end) - start", "size = stop - start", "known ids get new numbers"),
            Mutant("self._blocks[: turn.keep]", "self._blocks[:]", "nothing is ever left out"),
            Mutant("start_s = self.start_s + agent.time_s", "start_s = agent.time_s", "sub-agents of no time"),
            Mutant("if entry.time_s < self._now_s", "if False", "time may run backwards"),
            Mutant("min(size, self._shared_blocks - len(blocks))", "size", "the shared prefix has no end"),
            Mutant("conversation * session_interval_s", "session_interval_s", "all sessions start at once"),
            Mutant("merge.advance(cursor.subagent(entry, of_agents))", "pass", "sub-agents are left out"),
        ),
    ),
    Group(
        file="kvtier/sim/plain.py",
        tests=("tests/sim/test_plain.py",),
        mutants=(
            Mutant("prompt.time_s - first_s", "prompt.time_s", "times count from another moment"),
            Mutant('BlockHash(b"\\xff" * HASH_BYTES)', "BlockHash(bytes(HASH_BYTES))", "texts and ids share blocks"),
            Mutant("        name = name_block(Label(name,", "        name = name_block(Label(prompt.root,", "no chain"),
            Mutant("if time_s < now_s or", "if", "time may run backwards"),
            Mutant("(tokens is None) == (text is None)", "tokens is None and text is None", "both at once"),
        ),
    ),
    Group(
        file="kvtier/sim/generate.py",
        tests=("tests/sim/test_workloads.py",),
        mutants=(
            Mutant("if self.said is None or turn.fresh", "if self.said is None", "nobody starts afresh"),
            Mutant("self.answer_tokens + turn.new_tokens", "turn.new_tokens", "answers are forgotten"),
            Mutant("keys = (*keys, piece.key)", "keys = (piece.key,)", "order makes no difference"),
            Mutant("num_blocks - text.tokens // self", "num_blocks + 1 - text.tokens // self", "a block too many"),
            Mutant("arrival_s <= heap[0][0]", "arrival_s > heap[0][0]", "sessions come out of order"),
            Mutant("self.turns_each / self.rate", "1 / self.rate", "turns make the rate"),
            Mutant("- _SIGMA**2 / 2", "", "lengths are longer than asked for"),
        ),
    ),
    Group(
        file="kvtier/sim/workloads.py",
        tests=("tests/sim/test_workloads.py",),
        mutants=(
            Mutant("rank**-exponent", "1", "all prompts are asked alike"),
            Mutant("if each and said > self.context_tokens", "if False", "a chat never ends"),
            Mutant("fresh=full", "fresh=False", "a summary is appended"),
            Mutant("said, new = tool_tokens, draw", "new = draw", "a context stays full"),
        ),
    ),
    Group(
        file="kvtier/sim/distances.py",
        tests=("tests/sim/test_stats.py",),
        mutants=(
            Mutant("if (turns > 0).any()", "if False", "broken prefixes give figures"),
            Mutant("self._steps[first + end - begin] -= 1", "pass", "runs have no end"),
            Mutant("self._recent.add(by, begin - end)", "pass", "a block is counted at every use"),
            Mutant(
                "self._recent.append(len(ids))", "self._recent.append(len(ids) - hits)", "used blocks are not recent"
            ),
            Mutant("time_s - self._times_s[by]", "time_s", "intervals from the beginning"),
        ),
    ),
    Group(
        file="kvtier/sim/stats.py",
        tests=("tests/sim/test_stats.py",),
        mutants=(
            Mutant(
                "min(hits * trace.block_tokens, request.input_tokens)", "hits * trace.block_tokens", "too many tokens"
            ),
            Mutant("< request.time_s - RECENT_S", "<= request.time_s - RECENT_S", "a conversation is over at once"),
            Mutant("if not self._requests[gone]", "if True", "a conversation that goes on is over"),
            Mutant("-(-int(total[-1]) * percent // 100)", "int(total[-1]) * percent // 100", "ranks are rounded down"),
        ),
    ),
    Group(
        file="kvtier/commands/files.py",
        tests=("tests/sim/test_trace_command.py",),
        mutants=(Mutant("beside.unlink(missing_ok=True)", "pass", "half a file is left"),),
    ),
    Group(
        file="kvtier/econ/billing/breakeven.py",
        tests=("tests/econ/test_billing_tariffs.py", "tests/econ/test_billing_properties.py"),
        mutants=(
            Mutant("(write - 1) / (1 - read)", "(write - 1) / (write - read)", "k for h"),
            Mutant("(write - 1) / (write - read)", "(write - 1) / (1 - read)", "h for k"),
            Mutant("-math.log1p(-hit", "math.log1p(hit", "a rate that is too low"),
            Mutant("(longer_write - read) / (write - read)) /", "longer_write / write) /", "reads forgotten"),
            Mutant("(longer_write - write) / (write - read)", "(longer_write - write) / write", "an expiry's read"),
            Mutant("write / read - 1 - _EPSILON", "write / read - _EPSILON", "a ping too many"),
            Mutant("- 1 - _EPSILON", "- 1", "49 pings by rounding"),
            Mutant("most_pings(write=write, read=read) + 1)", "most_pings(write=write, read=read))", "an hour less"),
            Mutant("(input_usd_per_mtok - cached_usd_per_mtok)", "input_usd_per_mtok", "a reuse that costs nothing"),
            Mutant("num_calls * (write - read) - write", "num_calls * (write - read)", "the call ahead is free"),
            Mutant("0 <= read < 1 <= write", "0 <= read <= 1 <= write", "a division by zero"),
        ),
    ),
    Group(
        file="kvtier/econ/billing/strategies.py",
        tests=("tests/econ/test_billing_traffic.py", "tests/econ/test_billing_properties.py"),
        mutants=(
            Mutant("if newest[ping.conversation or 0] != number:", "if False:", "pings go on after the next call"),
            Mutant("if sent + 1 < limit:", "if sent < limit:", "a ping too many"),
            Mutant("due[0][0] < time_s", "due[0][0] <= time_s", "a ping with the call"),
            Mutant("if marked and call.marks else", "if call.marks else", "an automatic cache is pinged in part"),
            Mutant("call.marks[-1].position if marked", "call.marks[0].position if marked", "half is let go"),
            Mutant("call.ends[position] >= minimum_tokens", "True", "what nobody stores is pinged"),
            Mutant('    yield from until(float("inf"))\n', "", "no pings after the last call"),
            Mutant("reversed(call.ids.tolist())", "call.ids.tolist()", "a session goes on where another began"),
            Mutant("    if found is None and len(call.ids):", "    if len(call.ids):", "a trace's numbers are lost"),
            Mutant("not sent.is_live(first, last)", "True", "a call ahead of what is there"),
            Mutant("first.ends[last] >= minimum_tokens", "True", "a call ahead for nothing"),
            Mutant("time_s=later_s, ", "", "the calls do not wait"),
            Mutant("ready[0][0] < oldest_s", "ready", "out of order"),
            Mutant(
                "group[0].time_s + within_s <= call.time_s]", "group[0].time_s + within_s < call.time_s]", "waits on"
            ),
            Mutant("Mark(position, lifetime)", "Mark(position)", "five minutes before an hour"),
            Mutant("min((_shared(first, other)", "max((_shared(first, other)", "what only some share"),
            Mutant("marks=marks if marked else None", "marks=None", "the call ahead stores by chance"),
            Mutant("if mark.position <= last)", "if True)", "marks beyond its end"),
        ),
    ),
    Group(
        file="kvtier/econ/billing/marking.py",
        tests=("tests/econ/test_billing_traffic.py",),
        mutants=(
            Mutant("for position in (shared - 1, last) if", "for position in (last,) if", "no second mark"),
            Mutant("yield call if call.marks is not None else", "yield", "marks that were set are lost"),
            Mutant("max(_GROWTH * have, minimum_tokens)", "max(have, minimum_tokens)", "made anew at every turn"),
            Mutant("max(_GROWTH * have, minimum_tokens)", "_GROWTH * have", "made below the minimum"),
            Mutant("            marked[call.ids[deepest]] = True\n", "", "made and forgotten"),
        ),
    ),
    Group(
        file="kvtier/econ/billing/calls.py",
        tests=("tests/econ/test_billing_traffic.py",),
        mutants=(
            Mutant(
                "request.input_tokens // block_tokens", "-(-request.input_tokens // block_tokens)", "a partial block"
            ),
            Mutant("min(len(request.blocks), ", "max(0, ", "blocks that a trace does not have"),
            Mutant("last_s <= request.time_s < math.inf", "request.time_s < math.inf", "time runs backwards"),
            Mutant("< math.inf", "<= math.inf", "a call at no time"),
            Mutant("request.input_tokens < 0 or ", "", "a prompt of fewer than no tokens"),
            Mutant(" or request.output_tokens < 0", "", "an answer of fewer than no tokens"),
            Mutant("in_content_blocks=False", "in_content_blocks=True", "look-back in blocks of a trace"),
            Mutant("if block_tokens < 1:", "if block_tokens < 0:", "blocks of nothing"),
        ),
    ),
    Group(
        file="kvtier/econ/billing/conversation.py",
        tests=("tests/econ/test_billing_traffic.py",),
        mutants=(
            Mutant("(parent, name, tokens)", "(-1, name, tokens)", "a segment is the same after another prefix"),
            Mutant("(parent, name, tokens)", "(parent, name, 0)", "lengths do not count"),
            Mutant("if call.time_s < last_s:", "if False:", "time runs backwards"),
            Mutant("enumerate(lines, start=1)", "enumerate(lines)", "the line before is blamed"),
            Mutant("        last_s = call.time_s\n", "", "time may run backwards"),
            Mutant("if order < rank:", "if False:", "a system prompt at the end"),
            Mutant('return f"text {', 'return f"id {', "a text is the id of its digest's letters"),
            Mutant("or value < 0:", "or False:", "fewer than no tokens"),
            Mutant(
                "isinstance(value, bool) or not isinstance(value, int)", "not isinstance(value, int)", "True is one"
            ),
            Mutant("not 0 <= value < math.inf", "not 0 <= value", "a call at no time"),
            Mutant(" and said in lifetimes:", ":", "a lifetime that nobody offers"),
            Mutant("marks=tuple(marks) or None", "marks=tuple(marks)", "nothing said is nothing marked"),
            Mutant("and text is None:", ":", "an id and a text"),
            Mutant("OverflowError, RecursionError) as exc:", "OverflowError) as exc:", "a bomb of brackets"),
            Mutant("ValueError, OverflowError,", "ValueError,", "a number as long as a line"),
        ),
    ),
    Group(
        file="kvtier/econ/billing/tariffs.py",
        tests=("tests/econ/test_billing_tariffs.py", "tests/econ/test_billing_rules.py"),
        mutants=(
            Mutant("    if not named:", "    if False:", "figures without a source"),
            Mutant('(table.get("title") and table.get("date"))', 'table.get("title")', "sources without a date"),
            Mutant("or not value >= 0:", "or False:", "prices below zero"),
            Mutant("or not value > 0:", "or value < 0:", "a lifetime of nothing"),
            Mutant("    if name not in known:", "    if False:", "names that mean nothing"),
            Mutant("writes.get(plan, prices.input_usd_per_mtok)", "prices.input_usd_per_mtok", "writes for nothing"),
            Mutant('for name in ("minimum_tokens",) if name in model', "for name in ()", "one minimum for all"),
            Mutant("if rules[other].entries == rules[plan].entries", "if True", "lifetimes of another cache"),
            Mutant("if prices.input_usd_per_mtok == 0:", "if False:", "shares of nothing"),
            Mutant("if self.made_apart and self.refreshed_on_use:", "if False:", "rent that nobody counts"),
            Mutant("tariff.model == firsts[tariff.provider]", "True", "every model ever"),
            Mutant("if not providers or tariff.provider in providers", "", "providers nobody asked for"),
            Mutant("if self.entries not in ENTRIES:", "if False:", "entries that end nowhere"),
        ),
    ),
    Group(
        file="kvtier/sim/sweep.py",
        tests=("tests/sim/test_sweep.py", "tests/sim/test_sweep_command.py"),
        mutants=(
            Mutant("{} if policy == OPTIMUM else dict", "dict", "a bound that a time to live pushes down"),
            Mutant(
                'best = {row["capacity_blocks"]: row["prefix_hits"]',
                'best = {rows[0]["capacity_blocks"]: row["prefix_hits"]',
                "shares of the optimum at another capacity",
            ),
            Mutant("/ most if most else None", "/ most if most is not None else None", "nothing divided by nothing"),
            Mutant(
                "if point[1] < lowest:", "if point[1] <= lowest:", "what costs more and is no sooner is on the front"
            ),
            Mutant("sorted(set(points))", "set(points)", "the front depends on the order of a set"),
            Mutant("if names and 0 in sizes[names[0]]:", "if False:", "a host tier that nobody pays for"),
            Mutant("                if size\n", "", "a tier of no blocks"),
            Mutant("sorted(sizes, key=TIER_NAMES.index)", "list(sizes)", "tiers in the order of the command line"),
            Mutant("            **options,\n", "", "written on eviction whatever was asked"),
            Mutant(
                "capacity_blocks=size, policy=policy)", "capacity_blocks=size)", "another policy than was asked for"
            ),
            Mutant("{max(1, round(size)) for", "{round(size) for", "a capacity of nothing"),
            Mutant("np.geomspace(low, high, count)", "np.linspace(low, high, count)", "no small capacity is tried"),
            Mutant("settings=Settings(tiers=[tier]), profile=profile)", "settings=Settings(tiers=[tier]))", "no costs"),
            Mutant('rows[0]["recompute_ttft_mean_s"], ', 'rows[0]["ttft_mean_s"], ', "no cache is as soon as a cache"),
        ),
    ),
    Group(
        file="kvtier/sim/workers.py",
        tests=("tests/sim/test_sweep.py",),
        mutants=(
            Mutant("found[number] = result", "found[-number] = result", "a row gets another's result"),
            Mutant("        done()\n", "        pass\n", "no progress"),
            Mutant("type(error)(f", "ConfigError(f", "an unreadable trace is another error than in one process"),
            Mutant(
                "except BrokenProcessPool as exc:",
                "except ZeroDivisionError as exc:",
                "a death that nobody understands",
            ),
            Mutant("        ours.close()  # what", "        pass  # what", "an interrupt waits for replays of minutes"),
            Mutant("signal.signal(signal.SIGINT, signal.SIG_IGN)", "pass", "a traceback from each process"),
            Mutant("    os._exit(1)\n", "    pass\n", "processes that outlive the sweep"),
        ),
    ),
    Group(
        file="kvtier/commands/html.py",
        tests=("tests/sim/test_sweep_command.py",),
        mutants=(
            Mutant("Markup(html.escape(text))", "Markup(text)", "a trace's name becomes part of the page"),
            Mutant("text if isinstance(text, Markup) else ", "", "markup is shown as text"),
            Mutant('data-value="{cell.value!r}"', 'data-value="{cell.text}"', "numbers are sorted by what is shown"),
            Mutant("{escaped(cell.text)}", "{cell.text}", "a number's text becomes part of the page"),
            Mutant("<title>{escaped(title)}", "<title>{title}", "a title becomes part of the page"),
        ),
    ),
    Group(
        file="kvtier/commands/sweep.py",
        tests=("tests/sim/test_sweep_command.py",),
        mutants=(
            Mutant('check_plot(args.html, "--html")', "pass", "work that ends without a report"),
            Mutant('{"refresh": False} if args.no_refresh', "{} if args.no_refresh", "--no-refresh does nothing"),
            Mutant(
                '        "admission": args.admission,\n        **({"ttl_s"', '        **({"ttl_s"', "all are admitted"
            ),
            Mutant(
                "or not listed or name in sizes:", "or not listed:", "of two sizes of a tier the first is forgotten"
            ),
            Mutant("found[: len(single)]", "found[-len(single) :]", "rows of other replays"),
            Mutant("write=args.write))", 'write="on_eviction"))', "--write does nothing"),
            Mutant("            profile.tier(name)\n", "            pass\n", "a tier without a price is found late"),
            Mutant(
                "{parse_capacity(part, block_bytes)", "{parse_capacity(part, None)", "bytes are refused with a model"
            ),
        ),
    ),
    Group(
        file="kvtier/calibrate/bands.py",
        tests=("tests/calibrate/test_bands.py",),
        mutants=(
            Mutant("LEVEL = 0.9", "LEVEL = 0.98", "wider than said"),
            Mutant("2 * comb(count", "comb(count", "one side is forgotten"),
            Mutant(">= LEVEL:", "> 0:", "bands that hold nothing"),
            Mutant("ordered[-1 - edge]", "ordered[-1]", "one side is wider"),
            Mutant("= sorted(samples), ", "= list(samples), ", "the first run is the lowest"),
            Mutant("lo=band.lo, hi=band.hi", "", "a figure without its band"),
        ),
    ),
    Group(
        file="kvtier/calibrate/prefill.py",
        tests=("tests/calibrate/test_prefill.py",),
        mutants=(
            Mutant("((1, *lengths))", "(lengths)", "the pass over one token is forgotten"),
            Mutant(
                "began + guess + runs * (sum(once.values()) + guess)", "began + guess", "rounds are not reckoned with"
            ),
            Mutant("if len(once) > 1 else", "if len(once) > 9 else", "a length that takes for ever is begun"),
            Mutant("min(seconds, timed(tokens))", "seconds", "one pass that was held up ends the search"),
            Mutant("max(mid, band.mid)", "band.mid", "a longer prompt takes less"),
            Mutant("max(hi, band.hi)", "band.hi", "a band below its median"),
            Mutant("max(lo, band.lo)", "band.lo", "a band wider than seen"),
        ),
    ),
    Group(
        file="kvtier/calibrate/tiers.py",
        tests=("tests/calibrate/test_tiers.py",),
        mutants=(
            Mutant(
                "    bench.prepare()\n    settle()\n    began = clock()\n",
                "    began = clock()\n    bench.prepare()\n",
                "preparing is timed",
            ),
            Mutant("    tier.delete(part.keys)\n", "", "a write of what is held does nothing"),
            Mutant(
                "    settle()\n    seconds = clock() - began",
                "    seconds = clock() - began",
                "the GPU is still at work",
            ),
            Mutant("if count < len(part):", "if count < 0:", "a lost block is fast"),
            Mutant('("small", 1)', '("small", 2)', "two blocks for one"),
            Mutant("max(0.0, s - moving_s)", "s", "bytes count twice"),
            Mutant("moving_s = self.block_bytes", "moving_s = self.batch_bytes", "no latency at all"),
            Mutant("self.batch_bytes / s / limit", "self.batch_bytes / s / max(limits)", "shares of another round"),
            Mutant(
                "self._share(self.write_s, self.raw_write)", "self._share(self.write_s, self.raw_read)", "another limit"
            ),
            Mutant("_open()\n        self._drop()", "_open()", "what opening reads ahead is warm"),
            Mutant("> most:", "> 1e12:", "warm passes for cold"),
        ),
    ),
    Group(
        file="kvtier/calibrate/amplification.py",
        tests=("tests/calibrate/test_amplification.py",),
        mutants=(
            Mutant("(last - first) / stored", "last / stored", "what was written before counts"),
            Mutant("_SECTOR_BYTES = 512", "_SECTOR_BYTES = 4096", "eight times too much"),
            Mutant("_SECTORS_WRITTEN = 6", "_SECTORS_WRITTEN = 4", "merged writes"),
            Mutant("if ratios and max(ratios) > 0", "if ratios", "a counter that sees nothing says zero"),
            Mutant("max(band.hi, device.mid)", "band.hi", "what the process cannot see is nowhere"),
            Mutant('lines["write_bytes"]', 'lines["cancelled_write_bytes"]', "another line"),
            Mutant('kind="assumed"', 'kind="measured"', "a guess passes for a measurement"),
            Mutant("next(iter(bands))", "list(bands)[-1]", "everybody's writes"),
        ),
    ),
    Group(
        file="kvtier/calibrate/energy.py",
        tests=("tests/calibrate/test_energy.py",),
        mutants=(
            Mutant('.startswith("package")', '.startswith("")', "cores count twice"),
            Mutant("(new - old) % size", "new - old", "a counter that wraps gives energy back"),
            Mutant("most + 1 for", "most for", "off by one at a wrap"),
            Mutant("sum(used) * _MICRO / seconds", "sum(used) * _MICRO", "joules for watts"),
            Mutant("if not zones:", "if False:", "no counters are no watts"),
        ),
    ),
    Group(
        file="kvtier/calibrate/prices.py",
        tests=("tests/calibrate/test_prices.py",),
        mutants=(
            Mutant("if usd_per_hour is not None:", "if False:", "--machine-price is passed over"),
            Mutant("core.value * cores", "core.value", "a machine of one core"),
            Mutant("if name in words", "if name in gpu.lower()", "another GPU's price"),
            Mutant("machine.value / gb", "machine.value", "each GB costs the machine"),
            Mutant('kind="assumed"', 'kind="given"', "an assumption passes for a fact"),
            Mutant("- set(named)", "", "what was named is assumed"),
            Mutant("if medium.tier in found:", "if False:", "the last one wins"),
            Mutant('if medium.tier == "remote":', "if False:", "a remote tier nobody measures"),
        ),
    ),
    Group(
        file="kvtier/calibrate/settings.py",
        tests=("tests/calibrate/test_calibrate_command.py",),
        mutants=(
            Mutant("if self.runs < LEAST_RUNS:", "if False:", "bands of one run"),
            Mutant("LEAST_BUDGET_S <= self.budget_s", "0 <= self.budget_s", "no time for anything"),
            Mutant("if asked or not fitting:", "if not fitting:", "lengths vanish unsaid"),
            Mutant("n <= max_tokens)", "n < max_tokens)", "the longest prompt is left out"),
            Mutant("min(_MOST_BYTES, ", "max(_MOST_BYTES, ", "batches of all memory"),
            Mutant("if free < needed_bytes:", "if False:", "a full disk is found out late"),
        ),
    ),
    Group(
        file="kvtier/calibrate/run.py",
        tests=("tests/calibrate/test_calibrate_command.py",),
        mutants=(
            Mutant('amplification if name == "disk" else _memory()', "_memory()", "assumed, not measured"),
            Mutant("pass_s=prefill_points(prefill)[0].mid", "pass_s=0.0", "a pass costs nothing"),
            Mutant("except (TierError, MeasureError, OSError) as exc:", "except OSError as exc:", "exit status 1"),
            Mutant("machine=machine_name(),", "machine=None,", "a profile good anywhere"),
            Mutant("spec.block_bytes // subject.spec.block_tokens", "spec.block_bytes", "bytes of a block for a token"),
        ),
    ),
    Group(
        file="kvtier/commands/calibrate.py",
        tests=("tests/calibrate/test_calibrate_command.py",),
        mutants=(
            Mutant("and not args.out.is_dir()", "", "found out at the end"),
            Mutant("0 <= args.machine_price < math.inf", "args.machine_price < math.inf", "negative prices"),
            Mutant("[_TINY] if tiny else []", "[]", "a tiny model passes for a large one"),
            Mutant(
                "with _scratch(args.directory or _made(cache_dir())) as name:",
                "with _scratch(Path()) as name:",
                "measures another disk",
            ),
        ),
    ),
)


def inside_copy(tests: Iterable[str], place: Path) -> tuple[int, str]:
    """Run tests in a copy of the repository; pytest's exit status (1 if they hang) and output."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", *tests]
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "FAILED timeout"
    return run.returncode, run.stdout + run.stderr


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what the tests need, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kvtier-mutant-") as name:
        place = Path(name)
        for part in ("kvtier", "tests", "benchmarks", "examples"):
            shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__", "results"))
        shutil.copy(ROOT / "pyproject.toml", place)
        (place / "conftest.py").write_text(CONFTEST)
        yield place


def line_of(group: Group, mutant: Mutant) -> int:
    """Where a mutant's line stands.

    Raises:
        SystemExit: The fragment is gone or no longer unique: the code changed, and so must the mutant.
            Or the mutant is no Python, which any test would notice.
    """
    text = (ROOT / group.file).read_text()
    if (count := text.count(mutant.right)) != 1:
        sys.exit(f"mutants: {group.file}: {mutant.right!r} occurs {count} times, expected exactly one")
    try:
        compile(text.replace(mutant.right, mutant.wrong), group.file, "exec")
    except SyntaxError as exc:
        sys.exit(f"mutants: {group.file}: {mutant.wrong!r} does not compile: {exc}")
    return text[: text.index(mutant.right)].count("\n") + 1


def first_failure(output: str) -> str:
    """The name of the first test that failed, from pytest's summary."""
    lines = [line.split(" - ")[0] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return lines[0].split(" ", 1)[1].rsplit("::", 1)[-1] if lines else "pytest did not start"


def judge(job: tuple[Group, Mutant]) -> Verdict:
    """Apply one mutant to a fresh copy and run its tests."""
    group, mutant = job
    line = line_of(group, mutant)
    begin = time.monotonic()
    with copied() as place:
        file = place / group.file
        file.write_text(file.read_text().replace(mutant.right, mutant.wrong))
        status, output = inside_copy(group.tests, place)
    if status in {4, 5}:
        sys.exit(f"mutants: {group.file}: pytest could not run {' '.join(group.tests)}:\n{output}")
    return Verdict(
        file=group.file,
        line=line,
        why=mutant.why,
        killed_by=first_failure(output) if status else None,
        seconds=round(time.monotonic() - begin, 2),
    )


def check_unmutated(groups: Iterable[Group]) -> None:
    """Stop if the tests fail without any help."""
    tests = sorted({test for group in groups for test in group.tests})
    with copied() as place:
        status, output = inside_copy(tests, place)
    if status:
        sys.exit(f"mutants: the tests fail on unmutated code, so killing proves nothing:\n{output}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mutants", description="Break kvtier on purpose and see the tests notice.")
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose path contains TEXT")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants at a time (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the verdicts here")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Judge every mutant; 1 if any survived."""
    args = parse(argv)
    groups = [group for group in GROUPS if args.only in group.file]
    if not groups:
        sys.exit(f"mutants: no file's path contains {args.only!r}")
    jobs = [(group, mutant) for group in groups for mutant in group.mutants]
    for group, mutant in jobs:
        line_of(group, mutant)
    check_unmutated(groups)
    say = partial(print, flush=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        verdicts = []
        for verdict in pool.map(judge, jobs):
            verdicts.append(verdict)
            where = f"{verdict.file}:{verdict.line}"
            say(f"{'killed  ' if verdict.killed_by else 'SURVIVED'}  {where:26} {verdict.why}")
            say(f"{'':10}{verdict.seconds:5.1f} s  {verdict.killed_by or '-'}")
    killed = sum(verdict.killed_by is not None for verdict in verdicts)
    if args.json:
        args.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=2) + "\n")
    say(f"{len(verdicts)} mutants, {killed} killed")
    return 0 if killed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
