"""Detectors of two recipes are not compared."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from recipe_trees import recipe_tree

from rsa_eval.__main__ import main
from rsa_eval.records.detection_recipe import recipe_fingerprint

WriteTrial = Callable[..., Path]
NAME = "mask_rcnn_R_50_FPN_1x"


@pytest.fixture
def write_detectors(write_trial: WriteTrial) -> Callable[..., list[str]]:
    """A function that writes the records of two seeds of a detector, and returns their folders."""

    def write(
        model: str, *words: str, without: str | None = None, place: str = "", **details: object
    ) -> list[str]:
        paths = []
        for seed in range(2):
            config = json.loads(json.dumps(recipe_tree(NAME, f"seed={seed}", *words), default=str))
            if without is not None:
                del config["solver"][without]
            path = write_trial(
                f"{model}-{seed}{place}",
                None,
                seed=seed,
                kind="detection",
                protocol=config["name"],
                data_set=config["data"]["name"],
                config=config,
                details=details,
                values={"bbox_AP": 40.0 + seed + len(model)},
            )
            paths.append(str(path.parent.parent))
        return paths

    return write


def test_other_settings_of_the_protocol_are_refused(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with both recipes, and the settings in which they differ."""
    ours = write_detectors("a")
    theirs = write_detectors("b", "solver.base_lr=0.01", "model.head_norm=none")
    assert main(["compare", *ours, "--against", *theirs]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for words in (["solver.base_lr=0.01", "model.head_norm=none"], []):
        assert f"{NAME} [{recipe_fingerprint(recipe_tree(NAME, *words))}]" in line
    assert "model.head_norm SyncBN | none, solver.base_lr 0.02 | 0.01" in line
    assert "evaluate both by the same protocol" in line


def test_one_recipe_is_compared_whatever_engine_and_place(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The result names the recipe; the engine is stated as a setting that differs."""
    ours, theirs = write_detectors("a"), write_detectors("bb", "engine=torchvision")
    assert main(["compare", *ours, "--against", *theirs]) == 0
    out = capsys.readouterr().out
    fingerprint = recipe_fingerprint(recipe_tree(NAME))
    assert f"bbox_AP of detection on coco by {NAME} [{fingerprint}]" in out
    assert "settings differ: engine detectron2 | torchvision" in out


def test_unknown_recipes_are_compared_with_equal_ones_alone(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Records that lack a setting are alike if all that they state is, and like no other."""
    ours, alike = write_detectors("a", without="base_lr"), write_detectors("b", without="base_lr")
    assert main(["compare", *ours, "--against", *alike]) == 0
    known = write_detectors("c")
    assert main(["compare", *ours, "--against", *known]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{NAME} [unknown recipe]" in line
    assert "differs: solver.base_lr None | 0.02" in line


def test_what_else_both_have_is_compared(
    write_detectors: Callable[..., list[str]],
    write_trial: WriteTrial,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The detectors are left out, with the reason."""
    ours, theirs = write_detectors("a"), write_detectors("b", "solver.base_lr=0.01")
    for model in ("a", "b"):
        for seed in range(2):
            write_trial(f"{model}-{seed}", [1] * 50 + [0] * 50, seed=seed)
    assert main(["compare", *ours, "--against", *theirs]) == 0
    out = capsys.readouterr().out
    assert "top1 of knn on cifar10" in out
    assert "detection on coco by" not in out
    (line, other) = (line for line in out.splitlines() if line.startswith("left out: "))
    assert "differs: solver.base_lr 0.02 | 0.01" in line
    assert "differs" not in other


def _left_out(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]


def test_a_reason_is_of_the_recipe_that_has_no_partner(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the other side's two recipes the one of the same name is meant, though it is second."""
    changed = "solver.base_lr=0.01"
    ours = [*write_detectors("a", changed), *write_detectors("a", "name=own", place="x")]
    other = write_detectors("b", "name=own")
    named = write_detectors("b", "solver.base_lr=0.05", place="x")
    assert main(["compare", *ours, "--against", *other, *named]) == 0
    (line, *_) = (line for line in _left_out(capsys) if "differs" in line)
    assert "differs: solver.base_lr 0.01 | 0.05" in line
    assert f"{NAME} [{recipe_fingerprint(recipe_tree(NAME, 'solver.base_lr=0.05'))}]" in line


def test_no_recipe_is_blamed_where_one_is_the_same(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings outside the recipe keep two evaluations from a partner."""
    ours = [
        *write_detectors("a", "training.precision=fp16"),
        *write_detectors("a", "training.precision=bf16", place="x"),
        *write_detectors("a", "solver.base_lr=0.01", place="y"),
    ]
    theirs = [
        *write_detectors("b", "solver.base_lr=0.01", place="y"),
        *write_detectors("b", "training.precision=fp32"),
    ]
    assert main(["compare", *ours, "--against", *theirs]) == 0
    left_out = _left_out(capsys)
    assert len(left_out) == 3
    assert not [line for line in left_out if "differs" in line]


def test_a_recipe_on_other_images_is_no_reason(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what was tested on the same images could have been compared."""
    ours = write_detectors("a")
    theirs = write_detectors("b", "data.name=mine", "solver.base_lr=0.01")
    assert main(["compare", *ours, "--against", *theirs]) == 2
    err = capsys.readouterr().err
    assert "share no evaluation" in err
    assert "differs" not in err


def test_recipes_of_two_names_are_not_compared(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with equal settings: a name stands for a paper's protocol."""
    ours, theirs = write_detectors("a"), write_detectors("b", "name=mine")
    assert main(["compare", *ours, "--against", *theirs]) == 2
    assert "differs: as they are named or recorded)" in capsys.readouterr().err


def test_detectors_by_other_test_annotations_are_refused(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two folders of VOC are of one recipe; older records, which lack the hashes, are compared."""
    known = {"train": "aa", "test": "bb"}
    ours = write_detectors("a", annotations_sha256=known)
    theirs = write_detectors("b", annotations_sha256=known | {"test": "cc"})
    assert main(["compare", *ours, "--against", *theirs]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "are judged by test annotations of different content" in line
    assert main(["compare", *ours, "--against", *write_detectors("c")]) == 0
    assert "trained on annotations" not in capsys.readouterr().out


def test_other_training_annotations_are_noted(
    write_detectors: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers compare; what they were trained on is said."""
    known = {"train": "aa", "test": "bb"}
    ours = write_detectors("a", annotations_sha256=known)
    theirs = write_detectors("b", annotations_sha256=known | {"train": "cc"})
    assert main(["compare", *ours, "--against", *theirs]) == 0
    assert "trained on annotations of different content" in capsys.readouterr().out
