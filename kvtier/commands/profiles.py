"""How every command that needs a machine with a model lets its user name one."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvtier.commands.sizes import at_least_one
from kvtier.econ.derive import DEFAULT_MEDIA, derive_profile
from kvtier.econ.machine import machine_name, versions
from kvtier.econ.models import load_config, load_model
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError


def add_profile_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Give a command what says how fast a machine is with a model, and what it costs."""
    group = parser.add_argument_group("the machine and the model")
    what = group.add_mutually_exclusive_group(required=required)
    what.add_argument("--model", metavar="NAME", help="a model that comes with kvtier, such as llama-3.1-8b")
    what.add_argument("--config", type=Path, metavar="FILE", help="a model's config.json")
    what.add_argument("--profile", type=Path, metavar="FILE", help="a profile as kvtier calibrate measured it")
    group.add_argument("--any-machine", action="store_true", help="take a profile of another machine or version")
    group.add_argument("--hardware", metavar="NAME", help="an accelerator, such as h100 (the default)")
    group.add_argument("--gpus", type=at_least_one, metavar="N", help="default: as few as hold the weights")
    group.add_argument("--drives", type=at_least_one, metavar="N", help="default: one for each GPU")
    group.add_argument(
        "--medium", action="append", metavar="NAME", help=f"one for each tier; default: {', '.join(DEFAULT_MEDIA)}"
    )
    group.add_argument("--mfu", type=float, metavar="X", help="share of the peak that prefill reaches; default: 0.5")
    group.add_argument("--kv-dtype", metavar="NAME", help="of the cached numbers; default: bfloat16")
    group.add_argument("--hardware-file", type=Path, metavar="FILE", help="TOML with figures of your own")


def profile_of(args: argparse.Namespace) -> Profile:
    """The profile that the command line names.

    Raises:
        ConfigError: Something unknown is named, or too much.
        ProfileError: A measured profile cannot be read, or is another machine's.
    """
    if args.profile is None:
        model = load_model(args.model) if args.config is None else load_config(args.config)
        return derive_profile(
            Profile,
            args.hardware or "h100",
            model,
            media=args.medium or DEFAULT_MEDIA,
            num_gpus=args.gpus,
            drives=args.drives,
            mfu=args.mfu,
            kv_dtype=args.kv_dtype or "bfloat16",
            hardware_file=args.hardware_file,
        )
    names = ("hardware", "gpus", "drives", "medium", "mfu", "kv_dtype", "hardware_file")
    given = [name for name in names if getattr(args, name) is not None]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ConfigError(f"--profile says what the machine is; {flags} cannot be given with it")
    profile = Profile.load(args.profile)
    if not args.any_machine:
        profile.check_here(machine_name(), versions())
    return profile
