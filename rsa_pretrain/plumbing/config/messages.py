"""Word the errors of settings."""

from collections.abc import Sequence

_SHOULD_BE = "Input should be "


def in_our_words(message: str) -> str:
    """Return a message of pydantic in the form of the toolkit's own."""
    if not message.startswith(_SHOULD_BE):
        return message
    expected = message.removeprefix(_SHOULD_BE).partition(", unable")[0]
    if expected.startswith("a valid dictionary"):
        return "expected a section of settings, section.key=value"
    expected = expected.replace("a valid integer", "an integer").replace("a valid ", "a ")
    if expected.startswith(("greater", "less")):
        expected = f"a number {expected}"
    return f"expected {expected}"


def is_among(key: str, stated: Sequence[str]) -> bool:
    """Return whether one of the stated keys is the key, or in its section, or its section."""
    return any(
        not key or f"{one}.".startswith(f"{key}.") or f"{key}.".startswith(f"{one}.")
        for one in stated
    )
