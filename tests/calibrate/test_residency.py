"""Page cache residency: seen to rise on reading, to fall on dropping, and enforced."""

import os
import sys
from pathlib import Path

import pytest
from lib.machine import conditions

from kvtier.calibrate.residency import assert_cold, drop, resident_fraction
from kvtier.errors import MeasureError, NotColdError

SIZE = 8 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An 8 MiB file on a disk that has a page cache to drop."""
    if sys.platform != "linux":
        pytest.skip("page cache residency needs Linux")
    kind = conditions(tmp_path)["disk"]["filesystem"]
    if kind not in {"ext4", "xfs", "btrfs"}:
        pytest.skip(f"{kind} need not drop pages when asked")
    path = tmp_path / "data"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_a_dropped_file_is_cold_and_a_read_one_is_resident(file: Path) -> None:
    drop(file)
    cold = resident_fraction(file)
    file.read_bytes()

    assert cold < 0.01
    assert resident_fraction(file) > 0.99


def test_a_file_just_written_is_dropped_though_its_pages_were_dirty(file: Path) -> None:
    before = resident_fraction(file)
    drop(file)

    assert before > 0.99
    assert_cold(file)


def test_half_a_file_read_is_half_resident(file: Path) -> None:
    drop(file)
    fd = os.open(file, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead past the half
    os.pread(fd, SIZE // 2, 0)
    os.close(fd)

    assert resident_fraction(file) == pytest.approx(0.5, abs=0.1)


def test_holes_do_not_make_a_resident_file_look_cold(file: Path) -> None:
    os.truncate(file, 100 * SIZE)

    assert resident_fraction(file) > 0.99


def test_assert_cold_names_the_file_and_the_share(file: Path) -> None:
    file.read_bytes()

    with pytest.raises(NotColdError, match=r"data: 100\.0% is still in memory"):
        assert_cold(file)


def test_assert_cold_allows_what_it_was_told_to_allow(file: Path) -> None:
    file.read_bytes()

    assert_cold(file, limit=1.0)


def test_an_empty_file_is_cold(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()

    assert resident_fraction(path) == 0.0


def test_other_systems_get_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(MeasureError, match="needs Linux, this is darwin"):
        drop(tmp_path)
