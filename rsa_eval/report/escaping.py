"""Escape untrusted text for LaTeX and spreadsheets (Jinja escapes HTML)."""

from rsa_pretrain.plumbing.text_table import one_line

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "β": r"$\beta$",
    "–": "--",
    "·": r"\textperiodcentered{}",
    "✓": r"\checkmark{}",
    "’": "'",
}
# A spreadsheet takes a cell that starts with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape_latex(text: str) -> str:
    """Escape text so that LaTeX finds no commands or comments in it."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def escape_spreadsheet(text: str) -> str:
    """Escape text so that a spreadsheet does not take it for a formula."""
    line = one_line(text)
    return f"'{line}" if line.startswith(_FORMULA) else line
