"""The conditions: complete, publishable, and right about the file system."""

import getpass
import json
import os
import socket
from pathlib import Path

import pytest
from lib.machine import _filesystem, conditions

MOUNTS = r"""/dev/a / ext4 rw 0 0
/dev/b /run/disk xfs rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/c /with\040space btrfs rw 0 0
early /over ext3 rw 0 0
late /over overlay rw 0 0
"""


def test_conditions_are_json(tmp_path: Path) -> None:
    result = conditions(tmp_path)

    assert json.loads(json.dumps(result)) == result


def test_conditions_name_what_a_reader_must_know(tmp_path: Path) -> None:
    result = conditions(tmp_path)

    assert result["cores"] == os.cpu_count()
    assert result["ram_bytes"] > 1 << 28
    assert result["cpu"]
    assert result["kernel"]
    assert result["date_utc"].endswith("+00:00")
    assert result["disk"]["filesystem"]
    assert {"torch", "transformers", "lmdb", "numpy", "kvtier", "git_commit", "gpu"} <= set(result)


def test_conditions_may_be_published(tmp_path: Path) -> None:
    text = json.dumps(conditions(tmp_path))

    for private in (str(tmp_path), str(Path.home()), socket.gethostname(), ': "/'):
        assert private not in text
    if getpass.getuser() != "root":  # a word too common to look for
        assert getpass.getuser() not in text


def test_keys_do_not_depend_on_the_directory(tmp_path: Path) -> None:
    assert conditions().keys() == conditions(tmp_path).keys()
    assert conditions()["disk"] is None


def test_missing_packages_and_programs_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.machine._PACKAGES", ("no-such-package",))
    monkeypatch.setenv("PATH", "")

    result = conditions()

    assert result["no-such-package"] is None
    assert result["git_commit"] is None
    assert result["gpu_driver"] is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/run/lock", "tmpfs"),
        ("/run/disk/store", "xfs"),
        ("/runner", "ext4"),
        ("/with space/x", "btrfs"),
        ("/over/x", "overlay"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_and_latest_mount(path: str, kind: str) -> None:
    assert _filesystem(Path(path), MOUNTS) == kind
