"""Word the errors of settings."""

from collections.abc import Collection, Iterable

_SHOULD_BE = "Input should be "


def in_our_words(message: str) -> str:
    """Return a message of pydantic in the form of the toolkit's own."""
    if message.startswith("Input is not a valid path"):
        return "expected a path, in quotes within the value where YAML reads anything but text"
    if not message.startswith(_SHOULD_BE):
        return message
    expected = message.removeprefix(_SHOULD_BE).partition(", unable")[0]
    if expected.startswith("a valid dictionary"):
        return "expected a section of settings, section.key=value"
    expected = expected.replace("a valid integer", "an integer").replace("a valid ", "a ")
    expected = expected.replace("a tuple", "a list")  # YAML's word
    if expected.startswith(("greater", "less")):
        expected = f"a number {expected}"
    return f"expected {expected}"


def is_stated_apart(key: str, apart: Collection[str], leaves: Iterable[str]) -> bool:
    """Return whether a setting, or every one of a section, is stated outside of the file.

    Args:
        key: Of the setting or section; empty for all settings.
        apart: Keys of the settings and sections stated outside of it.
        leaves: Keys of all settings, the file's among them.
    """

    def is_apart(one: str) -> bool:
        return any(_is_within(one, other) for other in apart)

    inside = [leaf for leaf in leaves if _is_within(leaf, key)]
    return is_apart(key) or (any(map(is_apart, inside)) and all(map(is_apart, inside)))


def _is_within(key: str, section: str) -> bool:
    return not section or f"{key}.".startswith(f"{section}.")
