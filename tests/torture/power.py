"""Power cuts: directories as a cut may leave them, made from copies of a file that was being written.

    commit 6 | record writes | commit 7: tree pages, sync, meta page | record writes | commit 8 ...
             A               B                                       C
    A  everything so far is on the medium: the last thing LMDB did was to sync
    B  what differs from A has been written and not synced
    C  everything is on the medium again

A writer's file is copied at such moments. A cut between A and C finds each page that differs as it
was in A, as it is in C, or torn: some sectors of 512 bytes old, some new. Which pages may differ is what
makes the model:

    record writes      pages that differ between A and B; LMDB has not begun to write
    commit             pages that differ between A and C, without the two meta pages, whose write begins after the sync
    meta page          all of C, and of the meta pages the sectors old or new
    first commits      the same while the directory is made, when even the meta pages are not synced
    lying drive        any page that differs over up to five commits, meta pages too: the drive did not honour the syncs

LMDB writes fewer than 200 bytes of a meta page, all in its first sector, and a drive writes a sector
whole or not at all; so a meta page is old or new. What was promised before A must be there,
except after a lying drive; there it is enough that nothing wrong is served and the store opens.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torture.blocks import FULL, ROOMY
from torture.checking import check_survivors, use
from torture.children import Say, run_cases
from torture.images import Image, cut_in_between
from torture.points import around_environments
from torture.report import Budget, Progress, Row, Tries, merge
from torture.writing import Ground, report_promises, work

#: Recordings; each gives ``IMAGES``.
TRIES = Tries(long=150, quick=3, ci=3)
IMAGES = 8

MOMENTS = ["record writes", "commit", "meta page", "lying drive"]
FIRST = "first commits"
FAULTS = [f"power: {moment}" for moment in [*MOMENTS, FIRST]]

_META_PAGES = (0, 1)
_HISTORY = 5
"""Commits that a lying drive may have kept to itself."""


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row for each moment."""
    rows: list[Row] = []
    seeds = budget.seeds(TRIES)
    cases = run_cases(partial(_recording, budget), seeds, lanes=budget.lanes, limit_s=240)
    for number, outcome in enumerate(cases, start=1):
        new = [Row(fault=fault, unit="images", **numbers) for fault, numbers in outcome.answer or []]
        if outcome.death is not None:
            new.append(Row(fault="power: a whole recording", unit="images", tried=1))
            new[-1].failures.append(f"seed {outcome.seed}: {outcome.death}")
        for row in new:
            row.seconds = outcome.seconds / len(new)
        budget.leave(outcome.seed, good=all(row.is_good for row in new))
        rows += new
        progress.step(number * IMAGES, len(seeds) * IMAGES, f"{sum(not row.is_good for row in rows)} failures")
    return sorted(merge(rows), key=lambda row: FAULTS.index(row.fault) if row.fault in FAULTS else -1)


@dataclass(slots=True)
class _Recorder:
    """Copies a data file around its commits, and ends the writer after the one that is wanted."""

    ground: Ground
    wanted: int
    copies: Path
    seen: int = 0
    after: list[tuple[Image, set[int]]] = field(default_factory=lambda: [(Image(0, {}), set())])
    """The file after the last commits, oldest first, and what was promised then."""

    @contextmanager
    def around(self) -> Iterator[None]:
        self.seen += 1
        data = self.ground.path / "data.mdb"
        before = Image.of(data) if self.seen == self.wanted else None
        yield
        if self.seen >= self.wanted - _HISTORY:
            self.after = [*self.after[-_HISTORY:], (Image.of(data), self.ground.promised())]
        if before is not None:
            self._save(before)
            os._exit(0)

    def _save(self, before: Image) -> None:
        before.write(self.copies / "before")
        for number, (image, _) in enumerate(self.after):
            image.write(self.copies / f"after-{number}")
        promises = [sorted(promised & self.ground.held) for _, promised in self.after]
        (self.copies / "promises.json").write_text(json.dumps(promises))


def _record(recorder: _Recorder, host: int, seed: int, say: Say) -> str:
    """The writer's whole life, unless the commit wanted comes first."""
    report_promises(recorder.ground.hear)
    around_environments({"commit": recorder.around})
    say("writing")
    work(recorder.ground, host, random.Random(seed), recorder.ground.hear)
    return f"ended after {recorder.seen} commits, {recorder.wanted} wanted"


def _recording(budget: Budget, seed: int, say: Say) -> list[tuple[str, dict[str, Any]]]:
    """Record one writer and check what cuts may leave of it: rows' names and numbers."""
    rng = random.Random(seed)
    disk, host, first = rng.choice([ROOMY, FULL]), rng.choice([0, 8]), seed % 3 == 2
    place = budget.place(seed)
    recorder = _Recorder(Ground(place / "written", disk), rng.randint(1, 4) if first else rng.randint(5, 40), place)
    place.mkdir()
    say(f"recording {recorder.wanted} commits")
    (outcome,) = run_cases(partial(_record, recorder, host), [rng.randrange(1 << 30)], lanes=1)
    if not (place / "promises.json").exists():
        raise RuntimeError(outcome.answer or outcome.death)
    promises = [set(promised) for promised in json.loads((place / "promises.json").read_text())]
    before = Image.of(place / "before")
    after = [Image.of(place / f"after-{number}") for number in range(len(promises))]
    answers = []
    for number in range(IMAGES):
        moment = MOMENTS[number % len(MOMENTS)]
        path = place / f"cut-{number}"
        path.mkdir(mode=0o700)
        _cut(moment, before, after, rng).write(path / "data.mdb")
        shutil.copy(place / "written" / "kvtier.lock", path)  # on the medium before the first commit
        if not first or rng.random() < 0.5:  # as old as the directory
            shutil.copy(place / "written" / "lock.mdb", path)
        say(f"checking after a cut, {moment}")
        numbers = _verdict(path, host, disk, None if moment == "lying drive" else promises[-2], seed)
        numbers["failures"] = [f"seed {seed}, image {number}, {moment}: {why}" for why in numbers["failures"]]
        answers.append((f"power: {FIRST if first and moment != 'lying drive' else moment}", numbers))
    return answers


def _cut(moment: str, before: Image, after: Sequence[Image], rng: random.Random) -> Image:
    """The file as a cut at this moment may leave it."""
    synced, done = after[-2], after[-1]
    meta = {n: before.pages[n] for n in _META_PAGES if n in before.pages}
    unseen = Image(done.size, {**{n: page for n, page in done.pages.items() if n not in _META_PAGES}, **meta})
    if moment == "record writes":
        return cut_in_between(synced, before, rng)
    if moment == "commit":
        return cut_in_between(synced, unseen, rng)
    if moment == "meta page":
        return rng.choice([unseen, done])
    return cut_in_between(rng.choice(after[:-1]), done, rng)


def _verdict(path: Path, host: int, disk: int, promised: set[int] | None, seed: int) -> dict[str, Any]:
    """The numbers of a row for one image; after a lying drive nothing is promised."""
    (found,) = run_cases(partial(_open, path, host, disk, promised is not None), [seed], lanes=1)
    if found.death is not None:
        return {"tried": 1, "failures": [found.death]}
    answer = found.answer
    failures = [*answer["problems"], *([answer["refused"]] if answer.get("refused") else [])]
    survived = int(not failures)
    lost = (promised or set()) - set(answer.get("listed", ()))
    if answer["wrong_bytes"]:
        failures.append(f"{answer['wrong_bytes']} wrong bytes served")
    if lost:
        failures.append(f"lost blocks {sorted(lost)[:8]}")
    return {
        "tried": 1,
        "survived": survived,
        "wrong_bytes": answer["wrong_bytes"],
        "lost_flushed": len(lost),
        "leaks": answer["leaks"],
        "notes": "started afresh" if any(path.glob("data.mdb.*")) else "",
        "failures": failures,
    }


def _open(path: Path, host: int, disk: int, strict: bool, seed: int, say: Say) -> dict[str, Any]:
    return check_survivors(path, host, disk, seed, say) if strict else use(path, host, disk, say, seed=seed)
