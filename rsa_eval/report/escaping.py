"""Text from outside, made harmless for Markdown, LaTeX and spreadsheets (HTML is Jinja's)."""

import unicodedata

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
_MARKDOWN = "\\`*_[]|~$"
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape_markdown(text: str) -> str:
    """Keep text from breaking out of a table cell or into markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in _MARKDOWN:
        escaped = escaped.replace(character, f"\\{character}")
    # No renderer shall make a link of an address.
    return _one_line(escaped).replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def escape_latex(text: str) -> str:
    """Keep text from being taken for commands, or for a comment."""
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def escape_spreadsheet(text: str) -> str:
    """Keep text from being taken for a formula."""
    line = _one_line(text)
    return f"'{line}" if line.startswith(_FORMULA) else line


def _one_line(text: str) -> str:
    """Make one line of printable characters."""
    spaced = " ".join(text.split())
    return "".join(character for character in spaced if unicodedata.category(character)[0] != "C")
