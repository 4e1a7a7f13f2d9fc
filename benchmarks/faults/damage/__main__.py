"""Print the outcomes of reading damaged files as a Markdown table, and each finding.

    python -m benchmarks.faults.damage --count 500 --seed 0

Each mutant must be refused in one line that names it, or read right; ``DAMAGE.md`` says what else
is a finding, of which one makes the exit code 1.
"""

import argparse
import sys

from benchmarks.faults.damage.outcomes import damage_outcomes
from benchmarks.faults.damage.trials import OTHER, REFUSED, SAME
from rsa_pretrain.plumbing.command_line import say
from rsa_pretrain.plumbing.text_table import render_table

_COLUMNS = ("kind", "mutants", REFUSED, SAME, OTHER, "findings", "peak MiB", "seconds")


def main() -> int:
    """Read the mutants of every kind and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=500, help="mutants per kind (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--only", default="", help="part of the names of the kinds to read")
    arguments = parser.parse_args()
    rows: list[list[object]] = []
    for found in damage_outcomes(arguments.count, arguments.seed, arguments.only):
        for finding in found.findings:
            say(f"finding: {' '.join(finding.split())}")
        counts = [found.counts[name] for name in (REFUSED, SAME, OTHER)]
        peak, seconds = round(found.peak_mib), round(found.seconds)
        rows.append([found.kind, found.num_mutants, *counts, found.num_findings, peak, seconds])
    say(render_table(_COLUMNS, rows, "markdown"))
    num_findings = sum(int(str(row[5])) for row in rows)
    say(f"\n{sum(int(str(row[1])) for row in rows)} mutants, {num_findings} findings")
    return 1 if num_findings else 0


if __name__ == "__main__":
    sys.exit(main())
