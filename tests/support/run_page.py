"""Run the Python blocks and the commands of a page in their order, in the current folder.

Called as ``python run_page.py PAGE.md FOUND.json``. Writes a list of the commands, each with the
output that the page shows and the output found. All run in this process, which imports torch once.
"""

import contextlib
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rsa_eval.__main__
import rsa_pretrain.__main__

PROGRAMS = {
    "rsa-pretrain": rsa_pretrain.__main__.main,
    "rsa-eval": rsa_eval.__main__.main,
    "pytest": pytest.main,
}


def commands_of(block: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block, ``$ COMMAND``, and the lines below it."""
    block = block.replace("\\\n", " ")
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def output_of(command: str) -> str:
    """Run a command; return its standard output."""
    program, *words = shlex.split(command)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        PROGRAMS[program](words)
    return output.getvalue()


def run(page: str) -> Iterator[dict[str, str]]:
    """Run a page's blocks and yield what each command shows and gives."""
    blocks = re.findall(r"^```(python|console)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for language, block in blocks:
        if language == "python":
            exec(compile(block, "page", "exec"), {})
        else:
            for command, shown in commands_of(block):
                yield {"command": command, "shown": shown, "found": output_of(command)}


if __name__ == "__main__":
    page, out = map(Path, sys.argv[1:])
    found = list(run(page.read_text(encoding="utf-8")))
    out.write_text(json.dumps(found), encoding="utf-8")
