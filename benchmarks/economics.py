"""What a cached token costs: every figure and picture of docs/economics.md.

    benchmarks/economics.py                                       everything, bills included: ten minutes or so
    benchmarks/economics.py --no-bills                            seconds
    benchmarks/economics.py --bills-of benchmarks/results/economics.json --plot-dir docs/plots
    benchmarks/economics.py --limit 1000                          bills of the first requests alone

Ledgers, holding times and prices follow from the data files of kvtier.econ and are the same on every machine; so are
the bills, which need the recorded traces: in KVTIER_TRACES, or in shared/traces beside the checkout. What was measured
is taken from the committed results of the other benchmarks.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lib import (
    economics,
    economics_bills,
    economics_claims,
    economics_prices,
    economics_report,
    economics_verdicts,
)
from lib.economics import CASE, CASES, MEDIA
from lib.machine import conditions
from lib.results import write_json

from kvtier.econ.prices import load_prices
from kvtier.errors import KVTierError

RESULTS = Path(__file__).resolve().parent / "results"


def main(argv: list[str] | None = None) -> int:
    """Compute, print, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bills = parser.add_mutually_exclusive_group()
    bills.add_argument("--no-bills", action="store_true", help="leave out the bills of the traces")
    bills.add_argument("--bills-of", type=Path, metavar="FILE", help="take them from an earlier report")
    bills.add_argument("--limit", type=int, metavar="N", help="bill the first N requests of each trace alone")
    parser.add_argument("--json", help="write the report here; - for standard output")
    parser.add_argument("--plot-dir", type=Path, metavar="DIR", help="draw the pictures there (needs matplotlib)")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit must be at least 1, got {args.limit}")
    if args.plot_dir is not None and find_spec("matplotlib") is None:
        parser.error("--plot-dir needs matplotlib: pip install 'kvtier[plot]'")
    try:
        bills_made = billed(args)
        report = computed() | {"bills": bills_made}
    except (KVTierError, OSError, ValueError) as exc:
        print(f"economics: {exc}", file=sys.stderr)
        return 2
    report["conditions"] = conditions()
    print(shown(report), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.plot_dir is not None:
        from lib.economics_plots import draw_all

        draw_all(json.loads(json.dumps(report)), args.plot_dir)
    write_json(report, args.json)
    return 0


def computed() -> dict[str, Any]:
    """All that needs no trace."""
    prices = sorted(load_prices().values(), key=lambda price: (round(price.share, 4), price.name))
    return {
        "benchmark": "economics",
        "setting": economics.setting(),
        "cases": [economics.case_facts(case) for case in CASES],
        "ledger": [row for case in CASES for media in MEDIA for row in economics.ledger_rows(case, media)],
        "holds": [hold for case in CASES for hold in economics.hold_rows(case)],
        "mfu_band": economics.mfu_band(),
        "curve": [point for case in CASES for point in economics.curve(case)],
        "tenth_tokens": economics.tenth_tokens(CASE["70b"]),
        "request": [economics.request_shares(case) for case in CASES],
        "attention": economics.attention(),
        "wear": economics.wear(RESULTS),
        "prices": [economics_prices.price_terms(price) for price in prices],
        "at_cost": economics_prices.at_cost(sorted({round(price.share, 4) for price in prices})),
        "deepseek": economics_prices.deepseek(),
        "measured": economics.measured(RESULTS),
        "prefix": economics_claims.prefix(),
        "window": economics_claims.window(),
        "inputs": economics.inputs(prices, RESULTS),
    }


def shown(report: dict[str, Any]) -> str:
    """The tables, verdicts first; the inputs are for the page and the JSON."""
    tables = {**economics_verdicts.parts(report), **economics_report.parts(report)}
    return "\n\n".join(f"{name}\n{table}" for name, table in tables.items() if name != "econ_inputs")


def billed(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The bills that the command line asks for; none with ``--no-bills``."""
    if args.no_bills:
        return []
    if args.bills_of is not None:
        earlier = json.loads(args.bills_of.read_text())
        if not isinstance(earlier, dict) or not isinstance(earlier.get("bills"), list):
            raise ValueError(f"{args.bills_of}: has no bills; expected a report of this script")
        return list(earlier["bills"])
    files = economics_bills.trace_files()
    return [economics_bills.billed(name, path, args.limit) for name, path in files.items()]


if __name__ == "__main__":
    sys.exit(main())
