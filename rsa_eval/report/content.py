"""Compute the parts of a report that its page, its tables as text and the live page share."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rsa_eval.records.groups import group_records
from rsa_eval.report.inputs import Inputs
from rsa_eval.report.learning import describe_learning
from rsa_eval.report.matrix import MATRIX_CAPTION, PairMatrix, build_matrix
from rsa_eval.report.paper_tables import build_paper_tables
from rsa_eval.report.record_pages import galleries_by_table, list_environments
from rsa_eval.report.summary import describe_coverage, describe_extent, find_best
from rsa_eval.report.sweeps import find_sweeps
from rsa_eval.report.tables import Table, build_tables
from rsa_eval.report.timing import time_runs
from rsa_eval.report.transfer import TRANSFER_CAPTION
from rsa_eval.report.transfer_rows import find_transfers
from rsa_pretrain.plumbing.versions import VERSION


def gather_content(
    inputs: Inputs, compare: Callable[[Table], PairMatrix | None] = build_matrix
) -> dict[str, Any]:
    """Compute everything the templates show but curves and single records, by their names.

    Args:
        inputs: Records and runs.
        compare: Compares the models of a table, which takes seconds for many models.
    """
    groups = group_records(inputs.records)
    tables, paper = build_tables(groups), build_paper_tables(groups)
    matrices = {table.anchor: compare(table) for table in tables}
    return {
        "extent": describe_extent(tables, len(inputs.records), len(inputs.runs)),
        "coverage": describe_coverage(paper),
        "best": find_best(tables),
        "tables": tables,
        "transfers": find_transfers(tables),
        "transfer_caption": TRANSFER_CAPTION,
        "galleries": galleries_by_table(tables),
        "matrices": matrices,
        "learning": {
            table.anchor: describe_learning(table, matrices[table.anchor]) for table in tables
        },
        "matrix_caption": MATRIX_CAPTION,
        "paper": paper,
        # The paper's tables follow the results if we have no numbers in them.
        "parts": ("paper", "results") if any(t.num_ours for t in paper) else ("results", "paper"),
        "sweeps": find_sweeps(groups),
        "timings": time_runs(inputs.runs),
        "machines": list_environments([record for _, record in inputs.records]),
        "unreadable": inputs.unreadable,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": VERSION,
    }
