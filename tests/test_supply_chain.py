"""``make audit`` claims nothing of packages that no service has checked."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
SAFE = {"name": "numpy", "version": "2.4.6", "vulns": []}
ADVISORY = {"id": "PYSEC-2024-1", "fix_versions": ["10.3.0"]}
UNSAFE = {"name": "pillow", "version": "10.2.0", "vulns": [ADVISORY]}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """The script that the target runs."""
    spec = spec_from_file_location("audit", Path(__file__).parents[1] / ".ci/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answers", "words", "code"),
    [
        ([], "NOT CHECKED", 0),
        ([UNKNOWN, UNKNOWN], "NOT CHECKED", 0),
        ([SAFE], "0 in 1 packages checked", 0),
        ([SAFE, UNKNOWN], "as the service does not know them: torch", 0),
        ([SAFE, UNSAFE], "pillow 10.2.0: PYSEC-2024-1, fixed in 10.3.0", 1),
    ],
)
def test_summary(audit: ModuleType, answers: list[dict[str, Any]], words: str, code: int) -> None:
    """A service that knows no package at all is one that was not reached, as PyPI's mirrors are."""
    sentence, status = audit.summarise(answers)
    assert status == code
    assert re.search(words, sentence)
