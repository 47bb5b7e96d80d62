"""Kills: processes that write are killed at chosen points and at random, and what they left is opened again.

One case is a series of kills. A writer works on a store of a tiny host tier and a disk, or of a
disk alone, and tells over a pipe what is promised to last; then it is killed. Another process opens what it
left, and the next writer goes on there, or afresh.

    writer  -> held 1 2 3, gone 2      see ``torture.writing``
            -> soon 0.0012             kill me then
    checker -> every block listed is whole, its parent is there, books = listing = what is read
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from typing import Any

from torture.blocks import FULL, ROOMY
from torture.checking import check_survivors
from torture.children import Outcome, Say, run_cases
from torture.points import POINTS, RANDOM, STEPS, Trap
from torture.report import Budget, Progress, Row, Tries, merge
from torture.writing import Ground, report_promises, work

#: Series of kills; each has ``KILLS``.
TRIES = Tries(long=100, quick=3, ci=5)
KILLS = 10

FAULTS = [f"kills: {name}" for name in dict.fromkeys(name for name, _ in POINTS)]

#: Longest that opening may take on a busy machine. The longest seen is in the notes.
_OPENING_S = 20.0


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row for each step."""
    rows: list[Row] = []
    slowest_s: dict[str, float] = {}
    seeds = budget.seeds(TRIES)
    work = partial(_series, budget)
    for number, outcome in enumerate(run_cases(work, seeds, lanes=budget.lanes, limit_s=240), start=1):
        new = [] if outcome.death is None else [_series_failed(outcome)]
        for fault, opening_s, numbers in outcome.answer or []:
            new.append(Row(fault=fault, unit="kills", seconds=outcome.seconds / KILLS, **numbers))
            slowest_s[fault] = max(slowest_s.get(fault, 0), opening_s)
        budget.leave(outcome.seed, good=all(row.is_good for row in new))
        rows += new
        progress.step(number * KILLS, len(seeds) * KILLS, f"{sum(not row.is_good for row in rows)} failures")
    merged = sorted(merge(rows), key=lambda row: FAULTS.index(row.fault) if row.fault in FAULTS else -1)
    for row in merged:
        row.notes += f"; opened in {slowest_s.get(row.fault, 0):.2f} s at most"
    return merged


def _series_failed(outcome: Outcome) -> Row:
    return Row(fault="kills: a whole series", unit="kills", tried=1, failures=[f"seed {outcome.seed}: {outcome.death}"])


def _series(budget: Budget, seed: int, say: Say) -> list[tuple[str, float, dict[str, Any]]]:
    """Kill ``KILLS`` times, or until something is wrong. For each: its row, how long opening took, the numbers."""
    rng = random.Random(seed)
    answers: list[tuple[str, float, dict[str, Any]]] = []
    grounds = {disk: Ground(budget.place(seed) / str(disk), disk) for disk in (ROOMY, FULL)}
    for number in range(KILLS):
        point = POINTS[(seed * KILLS + number) % len(POINTS)]
        needs = STEPS[point[0]].needs if point != RANDOM else ""
        ground = grounds[FULL if needs == "full" else rng.choice([ROOMY, FULL])]
        if needs == "fresh" or rng.random() < 0.15:
            ground.afresh()
        host = 8 if needs == "host" else rng.choice([0, 8, 8])
        say(f"killing at {' '.join(point)}")
        when, wrong_end = _kill(point, ground, host, rng)
        say(f"checking after a kill at {' '.join(point)}")
        opening_s, numbers = _verdict(ground, host, wrong_end)
        numbers["failures"] = [f"seed {seed}, kill {number}, {when}: {why}" for why in numbers["failures"]]
        answers.append((f"kills: {point[0]}", opening_s, {**numbers, "notes": when}))
        if numbers["failures"]:
            break
    return answers


def _verdict(ground: Ground, host: int, wrong_end: str | None) -> tuple[float, dict[str, Any]]:
    """What a checker found, as the numbers of a row."""
    (found,) = run_cases(partial(check_survivors, ground.path, host, ground.disk), [0], lanes=1, limit_s=60)
    failures = [] if wrong_end is None else [wrong_end]
    if found.death is not None:
        return 0.0, {"tried": 1, "failures": [*failures, f"checking: {found.death}"]}
    answer = found.answer
    failures += answer["problems"]
    lost = ground.promised() - set(answer["listed"])
    if answer["opening_s"] > _OPENING_S:
        failures.append(f"opening took {answer['opening_s']:.1f} s")
    if answer["wrong_bytes"]:
        failures.append(f"{answer['wrong_bytes']} wrong bytes served")
    numbers = {
        "tried": 1,
        "survived": int(not failures),
        "wrong_bytes": answer["wrong_bytes"],
        "lost_flushed": len(lost),
        "leaks": answer["leaks"],
        "failures": [*failures, f"lost blocks {sorted(lost)[:8]}"] if lost else failures,
    }
    ground.held = set(answer["listed"])
    return answer["opening_s"], numbers


def _kill(point: tuple[str, str], ground: Ground, host: int, rng: random.Random) -> tuple[str, str | None]:
    """Let a writer work until it is killed: when that was, and what went wrong if it ended otherwise."""
    ours, theirs = os.pipe()
    errors = os.memfd_create("stderr")
    write_seed = rng.randrange(1 << 30)
    limit_s = rng.uniform(0, 0.3) if point == RANDOM else 30.0
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.dup2(errors, 2)
        _write(point, ground, host, random.Random(write_seed), theirs)
    os.close(theirs)
    late = _listen(pid, ours, ground, limit_s)
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    said = os.pread(errors, 1 << 16, 0).decode(errors="replace").strip().splitlines()
    os.close(errors)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    wrong_end = None if killed else f"the writer ended by itself: {said[-1] if said else status}"
    return late if late and point != RANDOM else point[1], wrong_end


def _listen(pid: int, pipe: int, ground: Ground, limit_s: float) -> str | None:
    """Hear a writer out and kill it when that is due; says so if it did not get to its point."""
    late = None
    heard = b""
    while True:
        if not select.select([pipe], [], [], limit_s)[0]:
            late = "point not reached in time"
            os.kill(pid, signal.SIGKILL)
        if not (part := os.read(pipe, 1 << 16)):
            return late
        *lines, heard = (heard + part).split(b"\n")
        for line in lines:
            verb, *rest = line.decode().split()
            if verb in {"held", "gone"}:
                ground.hear(line.decode())
                continue
            late = "end of work" if verb == "end" else late
            time.sleep(float(rest[0]) if verb == "soon" else 0)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _write(point: tuple[str, str], ground: Ground, host: int, rng: random.Random, pipe: int) -> None:
    """The writer's whole life."""

    def tell(line: str) -> None:
        os.write(pipe, f"{line}\n".encode())  # of a few hundred bytes at most: whole, whichever thread says it

    status = 1
    try:
        report_promises(tell)
        Trap(point, rng, tell)
        work(ground, host, rng, tell)
        tell("end")
        time.sleep(30)  # to be killed
    except BaseException:  # noqa: BLE001  (whatever it is, the parent wants to read it)
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(status)
