import pytest

from rsa_eval.report.escaping import escape_latex, escape_spreadsheet


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("50% & $x_1$ #~^", r"50\% \& \$x\_1\$ \#\textasciitilde{}\textasciicircum{}"),
        ("92.3±0.1, β − ×", r"92.3$\pm$0.1, $\beta$ $-$ $\times$"),
        ("a\n%b", r"a \%b"),
    ],
)
def test_latex(text: str, escaped: str) -> None:
    """Escaped text contains no commands, comments or foreign mathematics."""
    assert escape_latex(text) == escaped


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\x00="])
def test_spreadsheet(start: str) -> None:
    """Formulas of a spreadsheet stay text."""
    assert escape_spreadsheet(f'{start}HYPERLINK("x")').startswith("'")
    assert escape_spreadsheet("RSA") == "RSA"
