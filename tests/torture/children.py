"""Cases in forked children, so that a crash or a hang of one is seen and ends nothing else.

    parent (torch imported, one thread, no store ever opened)
      |- fork -> case: works, says where it is, answers once     pipe -> Outcome
      |- fork -> case: dies of SIGBUS                                 -> Outcome(death="SIGBUS")
      `- fork -> case: hangs, is killed at its limit                  -> Outcome(death="no answer in 60 s")

A fork of a process that has torch loaded takes milliseconds; a new interpreter takes seconds.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Say = Callable[[str], None]
"""Tells the parent what a case is about to do, in case it dies of that."""


@dataclass(slots=True)
class Outcome:
    """What became of a case."""

    seed: int
    answer: Any
    """What the case returned, as JSON carries it; None if it did not get that far."""

    death: str | None
    """How it ended if it did not return; the last it said, and the end of its standard error."""

    seconds: float


def run_cases(
    work: Callable[[int, Say], Any], seeds: Iterable[int], *, lanes: int = 2, limit_s: float = 60.0
) -> Iterator[Outcome]:
    """Run ``work(seed, say)`` for each seed in a child of its own; outcomes in the order they end.

    Args:
        work: The case; returns what JSON can carry. What it raises ends the case like a crash.
        seeds: One for each case.
        lanes: Cases at a time.
        limit_s: Longest a case may take before it counts as hanging and is killed.
    """
    waiting = iter(seeds)
    running: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                while len(running) < lanes and (seed := next(waiting, None)) is not None:
                    child = _Child.fork(work, seed, limit_s)
                    running[child.pipe] = child
                    selector.register(child.pipe, selectors.EVENT_READ)
                if not running:
                    return
                for ready, _ in selector.select(timeout=0.5):
                    child = running[ready.fd]
                    if not child.read():
                        selector.unregister(child.pipe)
                        del running[child.pipe]
                        yield child.outcome()
                for child in running.values():
                    child.kill_if_late()
        finally:
            for child in running.values():
                child.kill()
                child.outcome()


@dataclass(slots=True)
class _Child:
    seed: int
    pid: int
    pipe: int
    errors: int
    """Its standard output and error."""

    limit_s: float
    began: float = field(default_factory=time.monotonic)
    killed: bool = False
    heard: bytearray = field(default_factory=bytearray)

    @classmethod
    def fork(cls, work: Callable[[int, Say], Any], seed: int, limit_s: float) -> _Child:
        ours, theirs = os.pipe()
        errors = os.memfd_create("stderr", os.MFD_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            _live(work, seed, theirs, errors)
        os.close(theirs)
        with suppress(OSError):  # the child does it too: whoever comes first
            os.setpgid(pid, pid)
        return cls(seed, pid, ours, errors, limit_s)

    def read(self) -> bool:
        """Take what the child has said; False once it is gone, or has closed its end."""
        part = os.read(self.pipe, 1 << 16)
        self.heard += part
        return bool(part)

    def kill_if_late(self) -> None:
        if not self.killed and time.monotonic() - self.began > self.limit_s:
            self.killed = True
            self.kill()

    def kill(self) -> None:
        """End it and every process it made."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pipe)
        seconds = time.monotonic() - self.began
        lines = [json.loads(line) for line in self.heard.split(b"\n")[:-1]]
        answers = [line["answer"] for line in lines if "answer" in line]
        death = None if answers else self._death(status, [line["doing"] for line in lines])
        os.close(self.errors)
        return Outcome(self.seed, answers[0] if answers else None, death, seconds)

    def _death(self, status: int, said: list[str]) -> str:
        if self.killed:
            how = f"no answer in {self.limit_s:.0f} s"
        elif os.WIFSIGNALED(status):
            how = f"died of {signal.Signals(os.WTERMSIG(status)).name}"
        else:
            how = f"ended with status {os.waitstatus_to_exitcode(status)}"
        size = os.fstat(self.errors).st_size
        end = os.pread(self.errors, 600, max(0, size - 600)).decode(errors="replace").strip().splitlines()
        return f"{how} while {said[-1] if said else 'starting'}" + (f" | {end[-1]}" if end else "")


def _live(work: Callable[[int, Say], Any], seed: int, pipe: int, errors: int) -> None:
    """The child's whole life."""
    status = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        answer = work(seed, lambda doing: _tell(pipe, {"doing": doing}))
        _tell(pipe, {"answer": answer})
        status = 0
    except BaseException:  # noqa: BLE001  (whatever it is, the parent wants to read it)
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _tell(pipe: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]
