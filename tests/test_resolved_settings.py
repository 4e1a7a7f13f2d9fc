"""Every recipe, suite and row of the paper resolves to the settings on record."""

import json
from pathlib import Path

import pytest

from detection.recipe import Recipe
from rsa_eval.reproduction.rows import Pretraining, find_rows
from rsa_eval.reproduction.trials import plan_trial
from rsa_eval.suite_config import SuiteConfig, load_evaluations
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_files import Section, flatten, load_config
from rsa_pretrain.shipped_configs import FOLDER

ROOT = Path(__file__).parents[1]
ON_RECORD = json.loads((ROOT / "tests/golden/resolved_settings.json").read_text(encoding="utf-8"))
PLACES = ("output_dir", "cache_dir")
ROWS = {row.name: row for row in find_rows() if row.work is not None}


def settings(section: Section) -> dict[str, object]:
    """What differs from the defaults, but for the places of results."""
    leaves = flatten(section.model_dump(mode="json", exclude_defaults=True))
    return {key: value for key, value in leaves.items() if key not in PLACES}


def test_every_row_and_suite_is_on_record() -> None:
    """None was lost, none is unchecked."""
    assert set(ROWS) == set(ON_RECORD["rows"])
    suites = {path.stem for path in (FOLDER / "eval").glob("*.yaml")}
    assert suites == set(ON_RECORD["suites"])


@pytest.mark.parametrize("name", ON_RECORD["rows"])
def test_rows_resolve_to_what_is_on_record(name: str) -> None:
    """A run and its evaluations, or a detector and its start."""
    row, expected = ROWS[name], ON_RECORD["rows"][name]
    if isinstance(row.work, Pretraining):
        trial = plan_trial(row, 0, Path("out"), [])
        found = {entry.name: settings(entry.config) for entry in trial.evaluations}
        assert settings(row.work.config) == expected["run"]
        assert found == expected["evaluations"]
    else:
        recipe = settings(load_config(Recipe, row.work.config))
        recipe.pop("name")
        assert (recipe, row.work.start) == (expected["run"], expected["start"])


@pytest.mark.parametrize("name", ON_RECORD["suites"])
def test_suites_resolve_to_what_is_on_record(name: str) -> None:
    """Each evaluation with its images."""
    suite = load_config(SuiteConfig, Path(name))
    evaluations = load_evaluations(suite, Path(), Path("features"))
    found = {entry.name: settings(entry.config) for entry in evaluations}
    assert found == ON_RECORD["suites"][name]


@pytest.mark.parametrize("name", ON_RECORD["configs"])
def test_other_configs_resolve_to_what_is_on_record(name: str) -> None:
    """The demo's, one for a user's own images, and the toy detectors'."""
    model = Recipe if name.startswith("toy") else PretrainConfig
    config = load_config(model, Path(name))
    assert settings(config) == ON_RECORD["configs"][name]
