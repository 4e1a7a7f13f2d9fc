"""State the versions of this toolkit and of installed packages."""

VERSION = "0.1.0"
"""Version of this toolkit. pyproject.toml reads it here, so that code that runs from a checkout
states its own version, whether or not it, or another version, is installed."""


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow: --help needs only VERSION

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
