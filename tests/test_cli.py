"""The command line: which command runs, what its exit status says, and that nobody waits for help."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from kvtier import cli
from kvtier.commands import output
from kvtier.errors import ConfigError, KVTierError

ROOT = Path(__file__).resolve().parents[1]

#: A program with a command that prints.
TALKER = """
import sys, types
from kvtier import cli

talk = types.ModuleType("talk")
talk.HELP, talk.add_arguments, talk.run = "talk", lambda parser: None, lambda args: print("hello") or 0
sys.modules["talk"], cli.COMMANDS["talk"] = talk, "talk"
sys.exit(cli.main(["talk"]))
"""


@pytest.fixture
def command(monkeypatch):
    """Makes ``kvtier brew`` a command that does what it is told, beside ``kvtier pour``."""

    def make(run=lambda args: 0):
        for name in ("brew", "pour"):
            module = types.ModuleType(f"commands_of_tests_{name}")
            module.HELP = f"{name} tea"
            module.add_arguments = lambda parser: (parser.add_argument("--cups", type=int), output.add_json(parser))
            module.run = run
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setitem(cli.COMMANDS, name, module.__name__)

    return make


def run_module(*words, **options):
    command = [sys.executable, "-m", "kvtier", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options)


# Which command


@pytest.mark.parametrize("status", [0, 1])
def test_a_command_gets_its_arguments_and_gives_the_exit_status(command, status):
    seen = []
    command(lambda args: seen.append(args.cups) or status)

    assert cli.main(["brew", "--cups", "2"]) == status
    assert seen == [2]


def test_only_the_command_asked_for_is_loaded(command, monkeypatch):
    command()
    monkeypatch.setitem(cli.COMMANDS, "pour", "a.module.that.is.not.there")

    assert cli.main(["brew"]) == 0


def test_help_names_every_command(command, capsys):
    command()

    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])

    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^ +{name}( |$)", said, re.MULTILINE) for name in cli.COMMANDS)
    assert "brew tea" in said


def test_an_unknown_command_names_near_ones(command, capsys):
    command()

    assert cli.main(["brwe"]) == 2
    assert capsys.readouterr().err == "kvtier: 'brwe' is not a command; did you mean brew?\n"


def test_a_command_like_no_other_names_all_of_them(command, capsys):
    command()

    assert cli.main(["xyzzy"]) == 2
    assert "brew" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["brew", "--cups", "many"], ["brew", "--saucers"]])
def test_a_command_line_that_cannot_be_read_is_status_2(command, words, capsys):
    command()

    with pytest.raises(SystemExit) as stopped:
        cli.main(words)

    assert stopped.value.code == 2
    assert capsys.readouterr().err


# What goes wrong


@pytest.mark.parametrize(("error", "status"), [(ConfigError, 2), (KVTierError, 1)])
def test_an_error_is_one_line_and_a_status(command, capsys, error, status):
    def run(args):
        raise error("no\n  water")

    command(run)

    assert cli.main(["brew"]) == status
    assert capsys.readouterr().err == "kvtier: no water\n"


def test_a_bug_keeps_its_traceback(command):
    command(lambda args: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        cli.main(["brew"])


def test_an_interrupt_is_no_traceback(command):
    def run(args):
        raise KeyboardInterrupt

    command(run)

    assert cli.main(["brew"]) == 130


def test_a_reader_that_has_gone_is_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", TALKER],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (141, b"")


# As a program


def test_the_package_can_be_run():
    done = run_module("--help")

    assert done.returncode == 0
    assert done.stdout.startswith("usage: kvtier ")


# JSON


def test_json_goes_to_a_file(command, tmp_path, capsys):
    command(lambda args: output.write_json({"cups": args.cups}, args.json) or 0)

    assert cli.main(["brew", "--cups", "2", "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == {"cups": 2}
    assert capsys.readouterr().out == ""


def test_json_on_standard_output_is_alone_there(command, capsys):
    def run(args):
        output.say("two cups", args.json)
        output.write_json({"cups": 2}, args.json)
        return 0

    command(run)

    assert cli.main(["brew", "--json", "-"]) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == ({"cups": 2}, "two cups\n")


def test_without_json_the_table_is_on_standard_output(command, capsys):
    command(lambda args: output.say("two cups", args.json) or output.write_json({"cups": 2}, args.json) or 0)

    assert cli.main(["brew"]) == 0
    assert capsys.readouterr().out == "two cups\n"


@pytest.mark.parametrize("place", ["missing/out.json", "."])
def test_json_that_cannot_be_written_is_found_before_the_work(command, tmp_path, place, capsys):
    command(lambda args: pytest.fail("the work was begun"))

    with pytest.raises(SystemExit) as stopped:
        cli.main(["brew", "--json", str(tmp_path / place)])

    assert stopped.value.code == 2
    assert "is not a file in a directory that exists" in capsys.readouterr().err


def test_json_that_can_no_longer_be_written_is_status_2(command, tmp_path, capsys):
    def run(args):
        (tmp_path / "out.json").mkdir()
        output.write_json({}, args.json)

    command(run)

    assert cli.main(["brew", "--json", str(tmp_path / "out.json")]) == 2
    assert "cannot be written: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_takes_json(name, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])

    assert "--json FILE" in capsys.readouterr().out
