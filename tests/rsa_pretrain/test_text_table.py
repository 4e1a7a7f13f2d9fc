import pytest

from rsa_pretrain.text_table import render_table

COLUMNS = ["name", "n"]
ROWS = [["a|b", 5], [None, None], ["long, name", 120]]


@pytest.mark.parametrize(
    ("table_format", "expected"),
    [
        ("text", "name          n\na|b           5\n–             –\nlong, name  120"),
        ("markdown", "| name | n |\n| --- | --: |\n| a\\|b | 5 |\n| – | – |\n| long, name | 120 |"),
        ("csv", 'name,n\na|b,5\n,\n"long, name",120'),
    ],
)
def test_a_table_has_three_forms(table_format, expected):
    """Numbers to the right, gaps marked, separators within cells escaped."""
    assert render_table(COLUMNS, ROWS, table_format) == expected


def test_no_rows_leave_the_headings():
    """An empty table is its heading."""
    assert render_table(COLUMNS, []) == "name  n"
