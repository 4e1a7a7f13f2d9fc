"""Test splitting an annotation file's images into training and test."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detection.coco.sets import CocoSet
from detection.survey.splitting import PART_OPENING, TrainTestSets, split_set
from rsa_pretrain.plumbing.errors import UserError

CROWD = -1


def _set(contents: Sequence[Sequence[int]], **others: Any) -> CocoSet:
    """A set whose images hold objects of these categories; CROWD stands for a crowd of the first.

    Args:
        contents: Of each image, from id 1 on.
        others: Further keys of the file.
    """
    images = [
        {"id": number, "file_name": f"{number}.png", "width": 100, "height": 80}
        for number in range(1, len(contents) + 1)
    ]
    annotations: list[dict[str, Any]] = []
    for number, found in enumerate(contents, start=1):
        for category in found:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": max(category, 1),
                    "iscrowd": int(category == CROWD),
                    "bbox": [1, 1, 10, 10],
                }
            )
    highest = max([1, *(category for found in contents for category in found)])
    categories = [{"id": id_, "name": f"kind {id_}"} for id_ in range(1, highest + 1)]
    tree = {**others, "images": images, "annotations": annotations, "categories": categories}
    return CocoSet(Path("own.json"), Path("photos"), tree)


def _ids(part: dict[str, Any]) -> set[int]:
    return {image["id"] for image in part["images"]}


def _categories(part: dict[str, Any]) -> set[int]:
    return {entry["category_id"] for entry in part["annotations"] if not entry["iscrowd"]}


def _check_whole(coco: CocoSet, split: TrainTestSets) -> None:
    """Each image is in one part, with all of its annotations and nothing else."""
    assert not _ids(split.train) & _ids(split.test)
    assert _ids(split.train) | _ids(split.test) == {image["id"] for image in coco.images}
    entries = []
    for part in (split.train, split.test):
        assert {entry["image_id"] for entry in part["annotations"]} <= _ids(part)
        assert part["categories"] == coco.tree["categories"]
        entries += part["annotations"]
    assert sorted(entry["id"] for entry in entries) == [
        entry["id"] for entry in coco.tree["annotations"]
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_split_is_whole_and_spread(share: float, seed: int) -> None:
    """Every image is in one part; every category on two images or more is in both."""
    # 40 of kind 1; of these, 10 of kind 2, 2 of kind 3, 1 of kind 4; crowds and empty ones.
    contents = [
        [1, *([2] if n % 4 == 0 else []), *([3] if n in (1, 2) else []), *([4] if n == 3 else [])]
        for n in range(40)
    ]
    coco = _set([*contents, *[[]] * 10, *[[1, CROWD]] * 10])
    split = split_set(coco, share, seed)
    _check_whole(coco, split)
    assert _categories(split.train) == {1, 2, 3, 4}
    assert _categories(split.test) == {1, 2, 3}
    assert split.one_sided == {"kind 4": 1}
    assert abs(len(_ids(split.test)) - share * 60) <= 3
    for special in (set(range(41, 51)), set(range(51, 61))):
        in_test = len(special & _ids(split.test))
        assert abs(in_test - share * 10) <= 2
        assert 1 <= in_test <= 9


def test_split_is_the_seeds() -> None:
    """The same seed gives the same split, another seed a different one."""
    coco = _set([[1]] * 30)
    assert split_set(coco, 0.2, 3) == split_set(coco, 0.2, 3)
    assert _ids(split_set(coco, 0.2, 3).test) != _ids(split_set(coco, 0.2, 4).test)
    assert len(_ids(split_set(coco, 0.2, 3).test)) == 6


@pytest.mark.parametrize("seed", range(8))
def test_entries_of_one_file_stay_together(seed: int) -> None:
    """A photograph that is listed twice, or under two spellings of its path, is in one part."""
    coco = _set([[1]] * 12)
    for first, second in ((0, 6), (1, 7), (2, 8)):
        coco.tree["images"][second]["file_name"] = coco.tree["images"][first]["file_name"]
    coco.tree["images"][9]["file_name"] = "./4.png"
    split = split_set(coco, 0.4, seed)
    _check_whole(coco, split)
    for pair in ({1, 7}, {2, 8}, {3, 9}, {4, 10}):
        assert pair <= _ids(split.train) or pair <= _ids(split.test)


def test_smallest_set() -> None:
    """Two images with the same category are one of training and one of test."""
    split = split_set(_set([[1], [1]]), 0.2, 0)
    assert [len(_ids(part)) for part in (split.train, split.test)] == [1, 1]


def test_a_category_goes_short_where_each_image_is_needed() -> None:
    """Images that are the only ones of others stay in training, and their category is named."""
    split = split_set(_set([[1, 2], [1, 3], [4], [4]]), 0.5, 0)
    assert _categories(split.train) == {1, 2, 3, 4}
    assert _categories(split.test) == {4}
    assert split.one_sided == {"kind 1": 2, "kind 2": 1, "kind 3": 1}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([[1, 1]], r"'own.json' has objects on 1 of 1 images; a split needs two with objects"),
        ([[1], [], []], "has objects on 1 of 3 images"),
        ([[CROWD], [CROWD]], "has objects on 0 of 2 images"),
        ([[1], [2], [3], []], "each of the 3 images with objects is the only one with some"),
    ],
)
def test_what_cannot_be_divided(contents: list[list[int]], message: str) -> None:
    """Each part needs an object of a category that training keeps."""
    with pytest.raises(UserError, match=message):
        split_set(_set(contents), 0.2, 0)


@pytest.mark.parametrize(
    ("info", "kept"),
    [
        ({"year": 2024, "part": "theirs"}, {"year": 2024}),
        ("words", {"info": "words"}),
        (None, {}),
    ],
)
def test_parts_keep_the_files_other_keys(info: Any, kept: dict[str, Any]) -> None:
    """Keys that are no list of COCO's stay; info says first that the part is no original."""
    coco = _set([[1]] * 5, info=info, licenses=[{"id": 1}])
    split = split_set(coco, 0.2, 7)
    for part, what in ((split.train, "training part, seed 7"), (split.test, "test part, a share")):
        assert json.dumps(part).startswith(PART_OPENING)
        assert part["licenses"] == [{"id": 1}]
        assert part["info"].items() >= kept.items()
        assert part["info"]["part"].startswith(what)
        assert part["info"]["part"].endswith("of 'own.json'")
