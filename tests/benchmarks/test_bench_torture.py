"""The table of ``scripts/torture`` in docs/reliability.md says what its JSON says."""

import json

import pytest
import readme
from lib import torture_report

GOOD = {"fault": "kills: put", "unit": "kills", "tried": 1200, "survived": 1200}
GOOD |= {"wrong_bytes": 0, "lost_flushed": 0, "leaks": 0, "notes": "x"}
CONDITIONS = {"cpu": "a processor", "cores": 2, "disk": {"filesystem": "ext4"}, "date_utc": "2026-01-02T03:04:05Z"}


def report(*rows):
    return {"mode": "long", "seed": 7, "seconds": 1500.0, "conditions": CONDITIONS, "rows": list(rows)}


def lines_of(*rows):
    return torture_report.markdown(report(*rows)).splitlines()


def test_every_row_has_its_line_and_the_last_is_the_sum():
    lines = lines_of(GOOD, GOOD | {"fault": "power: commit", "unit": "images", "tried": 34, "survived": 34})

    assert "| kills: put | kills | 1,200 | 1,200 | 0 | 0 | 0 |" in lines
    assert "| power: commit | images | 34 | 34 | 0 | 0 | 0 |" in lines
    assert "| all |  | 1,234 | 1,234 | 0 | 0 | 0 |" in lines


def test_the_table_says_how_it_was_made():
    assert lines_of(GOOD)[0] == (
        "a processor, 2 cores, ext4; `scripts/torture`, mode long, from seed 7 on, 25 minutes; 2026-01-02."
    )


@pytest.mark.parametrize("change", [{"survived": 1199}, {"wrong_bytes": 1}, {"lost_flushed": 1}, {"leaks": 1}])
def test_a_row_that_is_not_good_is_named_below(change):
    assert lines_of(GOOD, GOOD | {"fault": "soak: x"} | change)[-1] == "Not as it should be: soak: x."


def test_if_all_is_good_that_is_said():
    assert lines_of(GOOD)[-1] == "Every row is as it should be."


def test_without_a_report_the_page_is_left_alone(tmp_path):
    assert readme.torture_parts(tmp_path / "torture.json") == {}


def test_with_a_report_the_page_gets_its_table(tmp_path):
    (tmp_path / "torture.json").write_text(json.dumps(report(GOOD)))

    assert readme.torture_parts(tmp_path / "torture.json") == {"torture": torture_report.markdown(report(GOOD))}
