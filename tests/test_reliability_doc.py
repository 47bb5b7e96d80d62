"""docs/reliability.md answers every complaint and names tests that exist."""

import re
from pathlib import Path

import pytest
from torture.run import parts

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text()
ROW = re.compile(r"^\| (\d+) \|([^|]+)\|([^|]+)\|([^|]+)\|$", re.MULTILINE)
ROWS = [[cell.strip() for cell in row.groups()] for row in ROW.finditer(PAGE)]
NUM_COMPLAINTS = 45


def names_in(path):
    return set(re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE)) if path.is_file() else set()


def test_the_complaints_are_all_there_in_order():
    assert [int(row[0]) for row in ROWS] == list(range(1, NUM_COMPLAINTS + 1))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_complaint_has_an_answer_and_a_test_that_exists_or_says_that_it_has_none(row):
    _, complaint, answer, shown_by = row
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", shown_by)

    assert complaint
    assert answer
    assert named or shown_by == "no test"
    assert ", ".join(f"`{path}::{test}`" for path, test in named) in {shown_by, ""}
    assert [(path, test) for path, test in named if test not in names_in(ROOT / path)] == []


def test_every_other_test_that_is_named_exists():
    there = set().union(*map(names_in, (ROOT / "tests").rglob("*.py")))
    named = set(re.findall(r"`(test_\w+)`", PAGE))

    assert len(named) > 15
    assert named <= there


def test_every_part_of_the_torture_has_its_paragraph():
    assert {name for name in parts() if f"\n**{name}.**" not in PAGE} == set()
