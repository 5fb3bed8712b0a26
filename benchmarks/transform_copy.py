"""What a transform costs a whole copy: client CPU beside that of the same copy through Arrow without it.

    python benchmarks/transform_copy.py SOURCE TARGET TABLE [--rounds 5] [--only rename,text]

TABLE holds lineitem's columns (``lineitem.py``). Each way is a command of its own (so that what it loads counts),
into a table ``transform_copy`` that is replaced each time, one way after the other and the best of the rounds:

* *raw*: no transform; between two databases of one engine the rows pass as they are.
* *arrow*: the same rows through Arrow: a rename, which nothing has to be worked out for.
* *text*, *numbers*, *choices*: a rename, a cast and two expressions, which Arrow's kernels work out.
* *duckdb*: the same with expressions that only DuckDB knows.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

RENAME = 'rename = { l_comment = "remark" }\n'
CAST = RENAME + 'cast = { l_linenumber = "int64" }\n'
WAYS = {
    "raw": None,
    "arrow": RENAME,
    "text": CAST + 'set = { l_shipmode = "lower(trim(l_shipmode))", '
    """l_status = "l_returnflag || '-' || l_linestatus" }""",
    "numbers": CAST + 'set = { l_total = "l_quantity * l_extendedprice", l_next = "l_linenumber + 1" }',
    "choices": CAST + """set = { l_kind = "CASE WHEN l_quantity > 25 THEN 'large' ELSE 'small' END", """
    """l_tax = "coalesce(l_tax, 0.00)" }\nwhere = "l_shipdate IS NOT NULL\"""",
    "duckdb": CAST + 'set = { l_total = "sqrt(l_quantity * l_extendedprice)", l_next = "l_linenumber % 5" }',
}  # fmt: skip


def copied(source: str, target: str, table: str, way: str, folder: pathlib.Path) -> tuple[float, float]:
    """One copy: its client's CPU seconds, and the seconds that it took. Raises RuntimeError where it fails."""
    arguments = ["copy", source, target, "--table", f"{table}:transform_copy", "--mode", "replace", "--quiet"]
    rules = WAYS[way]
    if rules is not None:
        config = folder / f"{way}.toml"
        config.write_text(f'[table."{table}"]\n{rules}\n')
        arguments += ["--config", str(config)]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "rowferry", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{way}: exit code {process.returncode}: {said}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(WAYS))
    options = parser.parse_args()
    ways = options.only.split(",")
    best = {way: (float("inf"), float("inf")) for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for way in ways:
                cpu_s, wall_s = copied(options.source, options.target, options.table, way, pathlib.Path(folder))
                best[way] = (min(best[way][0], cpu_s), min(best[way][1], wall_s))
    for way, (cpu_s, wall_s) in best.items():
        beside = "".join(
            f"   {cpu_s / best[base][0] - 1:+6.1%} beside {base}" for base in ("raw", "arrow") if base in best
        )
        print(f"{way:<8} client CPU {cpu_s:.3f} s   wall {wall_s:.2f} s{beside}")


if __name__ == "__main__":
    main()
