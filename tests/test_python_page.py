"""The recipes of docs/python.md, run as they stand; each value behind ``#`` is the line's."""

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run(block, names):
    """Run a block; return (line, value stated, value found) of each expression with a comment."""
    values = []
    for statement in ast.parse(block).body:
        line = block.splitlines()[statement.end_lineno - 1]
        comment = line.encode()[statement.end_col_offset :].decode().strip()
        if isinstance(statement, ast.Expr) and comment.startswith("# "):
            found = eval(ast.get_source_segment(block, statement), names)
            values.append((line, comment.removeprefix("# "), repr(found)))
        else:
            exec(compile(ast.Module([statement], []), str(PAGE), "exec"), names)
    return values


def test_recipes_give_what_the_page_states(tmp_path, monkeypatch):
    """Sections run in order in one folder, each in a new namespace, as in a new notebook."""
    monkeypatch.chdir(tmp_path)
    _, *sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    for section in sections:
        names = {"__name__": "__main__"}
        values = [value for block in BLOCK.findall(section) for value in run(block, names)]
        assert values, section.partition("\n")[0]
        for line, stated, found in values:
            assert found == stated, line
