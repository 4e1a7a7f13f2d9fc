import pytest

from rsa_pretrain.plumbing.text_table import Markdown, escape_markdown, render_table

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


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("a\n\nb", "a b"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("![x](http://y)", r"!\[x\](http:&#47;&#47;y)"),
        ("`*_~$\\", r"\`\*\_\~\$\\"),
        ("a\x00\u202eb", "ab"),
    ],
)
def test_markdown_text_is_escaped(text, escaped):
    """Cells, markup, images, addresses and hidden characters."""
    assert escape_markdown(text) == escaped
    assert render_table([text], [[text]], "markdown").splitlines() == [
        f"| {escaped} |",
        "| --- |",
        f"| {escaped} |",
    ]


def test_markdown_cells_stay_and_named_columns_are_aligned():
    """A mean ± deviation in bold, to the right."""
    cell = Markdown("**92.20 ± 0.20**")
    lines = render_table(["n"], [[cell]], "markdown", numeric=["n"]).splitlines()
    assert lines == ["| n |", "| --: |", "| **92.20 ± 0.20** |"]
