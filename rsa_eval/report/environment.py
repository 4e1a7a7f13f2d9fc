"""Open the templates of pages and tables."""

from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

_REPORT = "rsa_eval.report"
_FOLDER = "templates"


def open_templates(*, autoescape: bool, package: str = _REPORT, **syntax: str) -> Environment:
    """Return an environment that finds a package's templates, and those of the report.

    Args:
        autoescape: Escape whatever is shown, for HTML.
        package: Package with a folder ``templates``.
        syntax: Marks of blocks and variables, where not the usual ones.
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(name, _FOLDER) for name in (package, _REPORT)]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **syntax,  # type: ignore[arg-type]
    )


def read_asset(name: str, package: str = _REPORT) -> str:
    """Return the text of a style sheet or a script beside the templates."""
    return files(package).joinpath(_FOLDER, name).read_text(encoding="utf-8")
