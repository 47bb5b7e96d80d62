"""Fill the marked parts of the README and of pages under docs/ from committed results and examples.

A part stands between ``<!-- name -->`` and ``<!-- /name -->``. With ``--check`` nothing is written,
and a stale part is an error: that is what the test runs.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from lib import (
    context_report,
    economics_report,
    economics_verdicts,
    formats_report,
    gpu_report,
    integrity_report,
    policies_report,
    torture_report,
    trace_tables,
)
from lib.bandwidth_markdown import markdown
from lib.result_tables import layerwise_table, meeting_table, replay_table, scale_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHOWN_TOKENS = (512, 2048, 4096, 8192)


def main(argv: list[str] | None = None) -> int:
    """Write the pages anew, or say which parts are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a part is stale")
    parser.add_argument("--json", action="store_true", help="print which parts are stale as JSON")
    args = parser.parse_args(argv)
    stale = {page: renew(ROOT / page, texts, write=not args.check) for page, texts in parts().items()}
    if args.json:
        print(json.dumps({"stale": [name for names in stale.values() for name in names]}))
    else:
        for page, names in stale.items():
            if names:
                print(f"{page}: {'stale' if args.check else 'renewed'}: {', '.join(names)}")
    return 1 if args.check and any(stale.values()) else 0


def renew(page: Path, texts: dict[str, str], *, write: bool) -> list[str]:
    """Fill a page's parts; returns the names of those that were stale."""
    new, stale = page.read_text(), []
    for name, text in texts.items():
        filled = fill(new, name, text)
        stale += [name] if filled != new else []
        new = filled
    if write and stale:
        page.write_text(new)
    return stale


def parts() -> dict[str, dict[str, str]]:
    """Every marked part's text, by page."""
    names = ("reload_vs_prefill", "tier_bandwidth", "index_scale", "layerwise", "compute_or_load", "storage_formats")
    reload, bandwidth, scale, layerwise, meeting, formats, integrity = map(result, (*names, "integrity"))
    priced = economics_report.priced(result("economics"))
    return {
        "README.md": {
            "priced": priced,
            "raw_tensors": (ROOT / "examples" / "raw_tensors.py").read_text().rstrip(),
            "toy_loop": (ROOT / "examples" / "toy_loop.py").read_text().rstrip(),
            "reload": reload_table(reload),
            "computed": computed_table(reload),
        },
        "docs/benchmarks.md": {
            **markdown(bandwidth),
            "scale": scale_table(scale),
            "replay": replay_table(result("replay_rate")),
            "layerwise": layerwise_table(layerwise),
            "meeting": meeting_table(meeting),
            "integrity": integrity_report.markdown(integrity),
            **gpu_report.parts(*map(result, ("reload_vs_prefill_h100", "layerwise_h100", "profile_llama-3.1-8b_h100"))),
        },
        "docs/context.md": context_parts(),
        "docs/economics.md": economics_parts(),
        "docs/formats.md": {"formats": formats_report.markdown(formats)},
        "docs/traces.md": {"traces": trace_tables.markdown(result("traces"))},
        "docs/policies.md": policies_parts(RESULTS / "policies.json"),
        "docs/reliability.md": torture_parts(RESULTS / "torture.json"),
    }


def result(name: str) -> dict[str, Any]:
    """A committed report."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def context_parts() -> dict[str, str]:
    """The parts of docs/context.md; the real model's only once somebody has kept a report."""
    texts = context_report.markdown(result("context_policies"))
    chat = RESULTS / "chat_loop.json"
    return texts | ({"context_chat": context_report.chat_table(json.loads(chat.read_text()))} if chat.exists() else {})


def economics_parts() -> dict[str, str]:
    """Every table of docs/economics.md."""
    report = result("economics")
    return {**economics_verdicts.parts(report), **economics_report.parts(report)}


def policies_parts(report: Path) -> dict[str, str]:
    """The parts of docs/policies.md; none as long as nobody has kept a report."""
    return policies_report.markdown(json.loads(report.read_text())) if report.exists() else {}


def torture_parts(report: Path) -> dict[str, str]:
    """The part of docs/reliability.md; none as long as nobody has kept a report."""
    return {"torture": torture_report.markdown(json.loads(report.read_text()))} if report.exists() else {}


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between a part's markers; a part outside a code block is set off by blank lines."""
    pattern = re.compile(rf"(```python\n)?<!-- {name} -->\n.*?<!-- /{name} -->\n(```\n)?", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"a page has no part {name!r}: expected <!-- {name} --> and <!-- /{name} -->")
    body = f"```python\n{content}\n```" if name in {"raw_tensors", "toy_loop"} else content
    return pattern.sub(lambda _: f"<!-- {name} -->\n{body}\n<!-- /{name} -->\n", text)


def reload_table(report: dict[str, Any]) -> str:
    """The main table: medians at a few lengths, every path."""
    about = report["conditions"]
    setting = f"recompute in the fastest setting found ({about['recompute_setting']})"
    what = f"{about['model']} ({about['weights']} weights, {about['dtype']})"
    where = f"{about['cpu']}, {about['cores']} cores"
    heads = ["prompt tokens", "path", "time to first token, ms", "faster than recompute"]
    heads += ["GiB/s", "of the raw limit", "of its floor"]
    lines = [
        f"{what} on {where}; medians of {about['runs']} interleaved runs; {setting}.",
        "",
        "| " + " | ".join(heads) + " |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        if row["prompt_tokens"] in SHOWN_TOKENS:
            rates = [number(row[name]) for name in ("gib_per_s", "ratio_to_limit", "ratio_to_floor")]
            cells = [f"{row['prompt_tokens']:,}", row["path"], f"{row['p50_ms']:,.0f}", f"{row['speedup']:.1f}x"]
            lines.append("| " + " | ".join([*cells, *rates]) + " |")
    return "\n".join([*lines, "", METHOD, "", findings(report)])


METHOD = (
    "GiB/s: a bare `get` into ready buffers. Raw limit: memcpy with all cores, or an O_DIRECT read for cold disk, in "
    "the same round. Floor: the bytes at that limit, then the forward pass of the one token that is left. Cold: "
    "environment closed, pages dropped, residency checked before every run."
)


def findings(report: dict[str, Any]) -> str:
    """Break-even, overhead and exactness in a paragraph."""
    shortest = min(row["prompt_tokens"] for row in report["rows"])
    even = ", ".join(f"{p} {'never' if n is None else f'{n} tokens'}" for p, n in report["break_even_tokens"].items())
    unseen = report["store_share_of_unseen_prefill"]
    shares = ", ".join(f"{share:.1%} at {int(n):,}" for n, share in unseen.items() if int(n) in SHOWN_TOKENS)
    return (
        f"Break-even, from: {even} (the shortest prompt measured has {shortest}). What the store adds to a prompt it "
        f"has never seen: {shares} tokens. Output {'identical' if report['exact'] else 'NOT identical'}; logits equal "
        f"the same two steps without a store bit for bit: {'yes' if report['bit_exact_same_split'] else 'no'}; "
        f"largest logit difference to the prompt in one go: {report['max_logit_difference_to_one_go']:.0e}."
    )


def computed_table(report: dict[str, Any]) -> str:
    """Bigger models on named GPUs: computed, not measured."""
    lines = [
        "| computed, not measured | loading wins above, GB/s | one 7 GB/s drive against recompute |",
        "| --- | ---: | ---: |",
    ]
    for row in report["computed"]:
        loses = "" if row["one_drive_speedup"] > 1 else " (loses)"
        needed, gained = f"{row['break_even_gb_per_s']:.1f}", f"{row['one_drive_speedup']:.2f}x{loses}"
        lines.append(f"| {row['shape']} on {row['gpu']} | {needed} | {gained} |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Two digits, or a dash where a figure has no meaning."""
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
