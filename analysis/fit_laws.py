"""Which law, and which split of compute, does a table of runs support?

    python analysis/fit_laws.py chinchilla
    python analysis/fit_laws.py runs/isoflop_cpu --out fits.json

Cost: seconds. Outcome: the three approaches side by side with their statuses, forms ranked by their error on the
largest budget, and the held-out rows checked where the table has some.
"""

import argparse
import json
from pathlib import Path

from lmscale.core.errors import UserError
from lmscale.core.files import write_text
from lmscale.study import fits
from lmscale.study.tables import read_table


def main(source: str, columns: str | None, where: str | None, out: Path | None) -> None:
    """Fit, print, and write every number to `out`."""
    table = read_table(source, columns, where)
    results = fits.fit(table)
    print("\n\n".join(map(str, results)))
    numbers = {"fits": [one.to_json() for one in results]}
    if "held_out" in table and table["held_out"].any():
        checks = [fits.held_out_check(one, table) for one in results if not isinstance(one, fits.Frontier)]
        print("\n" + "\n".join(map(str, checks)))
        numbers["held_out"] = [check.to_json() for check in checks]
    try:
        ranked = fits.compare(table)
    except UserError as error:
        print(f"\nForms are not compared: {error}")
    else:
        print(f"\n{ranked}")
        numbers["comparison"] = [ranked.to_json()]
    if out is not None:
        write_text(out, json.dumps(numbers, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="a sweep's folder, a CSV, Parquet or JSONL file, or chinchilla")
    parser.add_argument("--columns", help="params=n_params,tokens=n_tokens,...")
    parser.add_argument("--where", help="keep rows for which this is true")
    parser.add_argument("--out", type=Path, help="write every number here")
    arguments = parser.parse_args()
    try:
        main(arguments.table, arguments.columns, arguments.where, arguments.out)
    except UserError as error:
        raise SystemExit(f"fit_laws: {error}") from None
