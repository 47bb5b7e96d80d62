"""Damage: files and directories damaged in every way, at rest and while a store has them open.

Small stores are written once, each with a copy of its data file from an earlier time. A case copies one,
damages the copy, and a child uses it: open, read everything, write until it evicts, flush, close, open again, read.

    asked of every case      the process lives, nothing but kvtier's errors is raised, and get and put raise none
                             no wrong byte, ever
    damaged at rest          it opens; if afresh, the damaged file is kept beside the new one
    foreign, newer           refused, and every byte left as it was
    only records hit         nothing is lost but those blocks and their descendants

A bit in the record that says which format this is may make a good file look like a newer one; such a file is
refused and left alone as well.
"""

from __future__ import annotations

import random
import re
import shutil
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kvtier.format import MAGIC
from torture import blocks
from torture.blocks import FULL, ROOMY
from torture.checking import use
from torture.children import Outcome, Say, run_cases
from torture.faults import AT_REST, EITHER, REFUSED, WHILE_OPEN, Template, Victim
from torture.images import Image, live_pages
from torture.report import Budget, Progress, Row, Tries, merge

TRIES = Tries(long=2400, quick=52, ci=104)

_FAULTS = {**AT_REST, **WHILE_OPEN}
_WEIGHTED = [name for turn in range(8) for name, (_, often) in _FAULTS.items() if turn < often]
FAULTS = [f"damage: {name}" for name in _FAULTS]

#: Writers of the templates: tier sizes in blocks, prompts put before the earlier copy and after it.
_TEMPLATES = [(8, ROOMY, 12, 30), (8, FULL, 20, 48), (0, ROOMY, 40, 8), (8, ROOMY, 1, 2)]


def run(budget: Budget, progress: Progress) -> list[Row]:
    """A row for each fault."""
    templates = [_template(budget.directory, number) for number in range(len(_TEMPLATES))]
    rows: list[Row] = []
    seeds = budget.seeds(TRIES)
    for outcome in run_cases(partial(_case, budget, templates), seeds, lanes=budget.lanes):
        rows.append(_row(outcome))
        budget.leave(outcome.seed, good=rows[-1].is_good)
        progress.step(len(rows), len(seeds), f"{sum(not row.is_good for row in rows)} failures")
    return sorted(merge(rows), key=lambda row: FAULTS.index(row.fault))


def _name(seed: int) -> str:
    return _WEIGHTED[seed % len(_WEIGHTED)]


def _row(outcome: Outcome) -> Row:
    """What became of one case; most of its numbers are made in the child."""
    row = Row(fault=f"damage: {_name(outcome.seed)}", unit="damages", tried=1, seconds=outcome.seconds)
    failures = [outcome.death] if outcome.death is not None else outcome.answer.pop("failures")
    for name, value in (outcome.answer or {}).items():
        setattr(row, name, value)
    row.survived = int(not failures)
    row.failures = [f"seed {outcome.seed}: {'; '.join(failures)}"] if failures else []
    return row


def _case(budget: Budget, templates: list[Template], seed: int, say: Say) -> dict[str, Any]:
    """Damage a copy and use it."""
    rng = random.Random(seed)
    name = _name(seed)
    template = rng.choice(templates)
    victim = Victim(budget.place(seed) / "kv", template)
    victim.path.mkdir(parents=True, mode=0o700)
    Image.of(template.path / "data.mdb").write(victim.data)
    for lock in ("lock.mdb", "kvtier.lock"):
        shutil.copy(template.path / lock, victim.path)
    fault = _FAULTS[name][0]
    hit: set[int] | None = None
    before: bytes | None = None
    arguments = (victim.path, template.host, template.disk, say)

    def strike() -> None:
        nonlocal hit
        hit = fault(victim, rng)

    if name in WHILE_OPEN:
        found = use(*arguments, seed=seed, while_open=strike)
    else:
        strike()
        before = _digest(victim.data)
        found = use(*arguments, seed=seed)
    return _judge(name, victim, found, hit, before)


def _judge(
    name: str, victim: Victim, found: dict[str, Any], hit: set[int] | None, before: bytes | None
) -> dict[str, Any]:
    """The numbers of a row, but for ``survived``. What lies there ``before`` is None if it was open then."""
    failures, notes, lost = list(found["problems"]), "", set[int]()
    if found["refused"] is not None:
        notes = "refused"
        failures += _wrong_refusal(name, found["refused"])
        if _digest(victim.data) != before:
            failures.append("refused, and changed all the same")
    elif name in REFUSED:
        failures.append("opened, though it is not this kvtier's")
    else:
        served = set(found["served"])
        lost = set() if hit is None else _untouched(victim.template.held, hit) - served
        if any(victim.path.glob("data.mdb.damaged*")):
            notes = "opened afresh"
        elif not served and before is not None and name != "empty file":
            failures.append("nothing is served and the damaged file is not kept")
    if found["wrong_bytes"]:
        failures.append(f"{found['wrong_bytes']} wrong bytes served")
    if lost:
        failures.append(f"lost blocks {sorted(lost)[:8]} that were not hit")
    numbers = {"wrong_bytes": found["wrong_bytes"], "lost_flushed": len(lost), "leaks": found["leaks"]}
    return {**numbers, "notes": notes, "failures": failures}


def _wrong_refusal(name: str, refused: str) -> list[str]:
    """What is wrong with an error at opening."""
    looks_newer = re.search(r"has format|holds blocks of", refused) is not None
    if name not in REFUSED | EITHER and not looks_newer:
        return [f"opening: {refused}"]
    if not refused.startswith(("ConfigError", "SpecMismatchError")):
        return [f"refused with another error than ConfigError: {refused}"]
    return []


def _untouched(held: set[int], hit: set[int]) -> set[int]:
    """Blocks held that are not hit and have no ancestor that is."""
    good: set[int] = set()
    for number in sorted(held, key=lambda number: blocks.LABELS[blocks.KEYS[number]].depth):
        label = blocks.LABELS[blocks.KEYS[number]]
        if number not in hit and (not label.depth or blocks.NUMBERS[label.parent] in good):
            good.add(number)
    return good


def _digest(path: Path) -> bytes:
    """Of a file's size and what is in it; holes are passed over."""
    image = Image.of(path)
    digest = blake2b(str(image.size).encode())
    for number, page in sorted(image.pages.items()):
        digest.update(number.to_bytes(8, "little") + page)
    return digest.digest()


def _template(directory: Path, number: int) -> Template:
    """Write a store in a child, and say what its file consists of."""
    host, disk, early, late = _TEMPLATES[number]
    path = directory / f"template-{number}"
    (outcome,) = run_cases(partial(_write_template, path, host, disk, early, late), [number], lanes=1)
    if outcome.death is not None:
        raise RuntimeError(f"template {number}: {outcome.death}")
    now, old = Image.of(path / "data.mdb"), Image.of(path.with_suffix(".old"))
    records = _records(now)
    return Template(path, host, disk, set(outcome.answer), records, live_pages(now), sorted(now.pages), old)


def _records(image: Image) -> dict[int, int]:
    """By page, the block whose record lies there; found by the payload, which is a function of the name."""
    numbers = {payload.numpy().tobytes(): blocks.NUMBERS[key] for key, payload in blocks.PAYLOADS.items()}
    records = {}
    for page, data in image.pages.items():
        if data in numbers and image.page(page - 1).startswith(MAGIC):
            records[page] = records[page - 1] = numbers[data]
    return records


def _write_template(path: Path, host: int, disk: int, early: int, late: int, seed: int, say: Say) -> list[int]:
    """Numbers of the blocks that the finished store serves."""
    say("writing")
    rng = random.Random(seed)
    for count in (early, late):
        with blocks.open_small(path, host=host, disk=disk) as store:
            for prompt in rng.sample(range(blocks.NUM_PROMPTS), count):
                blocks.put(store, prompt)
                if rng.random() < 0.2:
                    store.flush()
        if count == early:
            Image.of(path / "data.mdb").write(path.with_suffix(".old"))
    with blocks.open_small(path, host=host, disk=disk) as store:
        held = {key for chain in blocks.CHAINS for key in chain.keys[: store.match_chain(chain.keys).num_blocks]}
    return sorted(blocks.NUMBERS[key] for key in held)
