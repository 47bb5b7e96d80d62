"""Several processes on one directory, some of them killed at any moment and replaced.

    3 writers -> put get match flush -> one directory, one cap      each with a small host tier, or none
    SIGKILL -> a writer -> another one joins                        its locks and snapshots are given back

Every block delivered is compared with what was put under its name, and no process ever sees more
blocks than the cap. Afterwards a fresh process holds the directory to account, as after any kill: what
was promised is there, every block is whole, and the books agree.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from torture import blocks
from torture.blocks import FULL, ROOMY
from torture.checking import check_survivors
from torture.children import Say, run_cases
from torture.report import Budget, Progress, Row, Tries, merge
from torture.writing import Ground, report_promises

TRIES = Tries(long=50, quick=4, ci=4)
FAULTS = ["processes: three writers", "processes: three writers, killed and replaced"]

NUM_WRITERS = 3
STEPS = {"long": 150, "quick": 40, "ci": 40}
KILLS = {"long": 12, "quick": 4, "ci": 4}


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row without kills and one with them."""
    seeds = budget.seeds(TRIES)
    rows = [Row(fault=fault, unit="runs") for fault in FAULTS]
    outcomes = run_cases(partial(_case, budget), seeds, lanes=1, limit_s=300)
    for done, outcome in enumerate(outcomes, start=1):
        answer = outcome.answer or {"wrong_bytes": 0, "lost": [], "problems": [outcome.death], "leaks": 0, "kills": 0}
        bad = [*answer["problems"], *([f"{len(answer['lost'])} blocks lost"] if answer["lost"] else [])]
        good = not bad and not answer["wrong_bytes"]
        row = Row(fault=FAULTS[outcome.seed % 2], unit="runs", tried=1, survived=int(good), seconds=outcome.seconds)
        row.wrong_bytes, row.lost_flushed, row.leaks = answer["wrong_bytes"], len(answer["lost"]), answer["leaks"]
        row.failures = [] if good else [f"seed {outcome.seed}: {'; '.join(bad)}"]
        row.figures = {f"kills {outcome.seed}": answer["kills"]} if answer["kills"] else {}
        rows.append(row)
        budget.leave(outcome.seed, good=good)
        progress.step(done, len(seeds))
    merged = merge(rows)
    merged[1].notes = f"{sum(merged[1].figures.values())} kills"
    return merged


def _case(budget: Budget, seed: int, say: Say) -> dict[str, Any]:
    """One directory's life; the seed says whether writers are killed, and whether the disk must evict."""
    rng = random.Random(seed)
    ground = Ground(budget.place(seed), FULL if seed % 4 > 1 else ROOMY)
    team = _Team(ground, budget.mode, seed)
    say("writing")
    for _ in range(NUM_WRITERS):
        team.join()
    for _ in range(KILLS[budget.mode] if seed % 2 else 0):
        time.sleep(rng.uniform(0.02, 0.25))
        team.kill(rng)
        team.join()
    team.wait()
    say("checking")
    outcome = next(run_cases(partial(check_survivors, ground.path, 4, ground.disk), [seed], lanes=1, limit_s=60))
    found = outcome.answer or {"wrong_bytes": 0, "listed": [], "problems": [outcome.death], "leaks": 0}
    lost = sorted(ground.promised() - set(found["listed"])) if ground.disk == ROOMY else []
    problems = team.problems + found["problems"]
    wrong = found["wrong_bytes"] + team.wrong_bytes
    return {"wrong_bytes": wrong, "lost": lost, "problems": problems, "leaks": found["leaks"], "kills": team.num_kills}


class _Team:
    """The writers of one directory, and what they have said."""

    def __init__(self, ground: Ground, mode: str, seed: int) -> None:
        self.num_kills = self.wrong_bytes = 0
        self.problems: list[str] = []
        self._ground = ground
        self._mode = mode
        self._next = seed * 1000
        self._writers: set[int] = set()
        self._ours, self._theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._heard = b""

    def join(self) -> None:
        """One more writer."""
        self._next += 1
        pid = os.fork()
        if pid == 0:
            os.close(self._ours)
            status = 1
            try:
                _write(self._ground.path, self._ground.disk, self._next, STEPS[self._mode], self._theirs)
                status = 0
            except BaseException as exc:  # noqa: BLE001  (whatever it is, it is to be counted)
                os.write(self._theirs, f"failed {type(exc).__name__}: {exc}\n".encode()[:4000])
            finally:
                os._exit(status)
        self._writers.add(pid)

    def kill(self, rng: random.Random) -> None:
        """One writer fewer."""
        pid = rng.choice(sorted(self._writers))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self.num_kills += os.WIFSIGNALED(status)
        self._writers.discard(pid)
        self._hear()

    def wait(self) -> None:
        """Return when all writers have done their work; they may not hang, so somebody else has a limit."""
        while self._writers:
            self._hear()
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in self._writers:
                self._writers.discard(pid)
                if os.waitstatus_to_exitcode(status):
                    self.problems.append(f"a writer ended with {os.waitstatus_to_exitcode(status)}")
            time.sleep(0.01)
        os.close(self._theirs)
        self._hear()
        os.close(self._ours)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while part := os.read(self._ours, 1 << 16):
                self._heard += part
        *lines, self._heard = self._heard.split(b"\n")
        for line in map(bytes.decode, lines):
            if line.startswith("failed"):
                self.problems.append(line)
            elif line.startswith("wrong"):
                self.wrong_bytes += int(line.split()[1])
            elif line:
                self._ground.hear(line)


def _write(path: Path, disk: int, seed: int, steps: int, pipe: int) -> None:
    """A writer's whole life."""

    def tell(line: str) -> None:
        numbers = line.split()
        for start in range(1, len(numbers), 100):  # pipes keep short lines whole
            os.write(pipe, (" ".join([numbers[0], *numbers[start : start + 100]]) + "\n").encode())

    rng = random.Random(seed)
    report_promises(tell)
    store = blocks.open_small(path, host=rng.choice([0, 6]), disk=disk, put_patience_s=0.05)
    for _ in range(steps):
        prompt = rng.randrange(blocks.NUM_PROMPTS)
        verb = rng.random()
        if verb < 0.45:
            blocks.put(store, prompt)
        elif verb < 0.9:
            _, wrong = blocks.get(store, prompt)
            if wrong:
                tell(f"wrong {wrong}")
        elif verb < 0.97:
            store.match(blocks.PROMPTS[prompt])
        else:
            store.flush()
        held = store.tiers[-1].used_bytes // blocks.BLOCK
        if held > disk:
            raise AssertionError(f"{held} blocks held, the cap is {disk}")
    store.close()
