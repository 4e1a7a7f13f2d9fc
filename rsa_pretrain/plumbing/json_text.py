"""Parse JSON of any origin, with one kind of error for all that can be wrong with it."""

import json
import re
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is malformed, nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_shown_json(text: str) -> Any:
    """Return the value of a JSON text that pages and tables show.

    Raises:
        ValueError: As ``parse_json``, or if it escapes half a character, which no text file holds.
    """
    tree = parse_json(text)
    if _SURROGATE.search(text):
        json.dumps(tree, ensure_ascii=False).encode()
    return tree
