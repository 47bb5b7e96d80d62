"""The command line: ``kvtier COMMAND ...``, one module a command, loaded when it is the one asked for.

    exit status   0  well
                  1  a check failed, or a store has a problem
                  2  the command line has one

A command's module has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args) -> status``, and
imports torch and the store inside ``run``, so that help comes at once. ``args.words`` is the command line as
it was given. Every command takes ``--json`` (``kvtier.commands.output``).
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from kvtier.errors import ConfigError, KVTierError

#: Where each command is.
COMMANDS: dict[str, str] = {
    "bill": "kvtier.commands.bill",
    "calibrate": "kvtier.commands.calibrate",
    "check": "kvtier.commands.check",
    "compact": "kvtier.commands.compact",
    "context": "kvtier.commands.context",
    "cost": "kvtier.commands.cost",
    "export": "kvtier.commands.export",
    "import": "kvtier.commands.import_",
    "inspect": "kvtier.commands.inspect",
    "oracle": "kvtier.commands.oracle",
    "report": "kvtier.commands.report",
    "simulate": "kvtier.commands.simulate",
    "sweep": "kvtier.commands.sweep",
    "trace": "kvtier.commands.trace",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
        argv: The words after ``kvtier``; None takes those of the process.

    Raises:
        SystemExit: Help was asked for, or the command line cannot be read.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parser(words).parse_args(words)
        args.words = words
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone. Python flushes once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except KVTierError as exc:
        print("kvtier:", *str(exc).split(), file=sys.stderr)
        return 2 if isinstance(exc, ConfigError) else 1
    return status


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """A parser that knows the command asked for, or all of them where none is."""
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        raise ConfigError(_unknown(name))
    parser = argparse.ArgumentParser(prog="kvtier", description="Look after a KV cache, and study what it is worth.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add(commands, COMMANDS if name is None else [name])
    return parser


def _add(commands: argparse._SubParsersAction[argparse.ArgumentParser], names: Iterable[str]) -> None:
    for name in names:
        module = import_module(COMMANDS[name])
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=2)
    meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(COMMANDS))}"
    return f"{name!r} is not a command; {meant}"
