from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.records.groups import format_number, group_records
from rsa_eval.records.record import Record

MakeTrial = Callable[..., Record]
RSA = "cifar10/rsa"


def _found(*records: Record) -> list[tuple[Path, Record]]:
    return [(Path(f"{number}.json"), record) for number, record in enumerate(records)]


def test_mean_and_sample_deviation_over_seeds(make_trial: MakeTrial) -> None:
    """90, 91 and 95: mean 92, squared differences 4 + 1 + 9 = 14, over n - 1 = 2 is 7."""
    trials = [
        make_trial(RSA, seed=seed, values={"top1": top1})
        for seed, top1 in ((2, 95.0), (0, 90.0), (1, 91.0))
    ]
    (group,) = group_records(_found(*trials))
    statistic = group.headline
    assert statistic is not None
    assert statistic.mean == pytest.approx(92)
    assert statistic.std == pytest.approx(7**0.5)
    assert statistic.text == "92.00 ± 2.65"
    assert statistic.trials == "seed 0: 90.00, seed 1: 91.00, seed 2: 95.00"
    assert [path.name for path in group.paths] == ["1.json", "2.json", "0.json"]


def test_one_training_repeated_is_one_trial(make_trial: MakeTrial) -> None:
    """Files of equal weights may differ in their dates; the newer record counts."""
    first, again, other = (
        make_trial(RSA, seed=seed, values={"top1": top1})
        for seed, top1 in ((0, 90.0), (0, 90.5), (1, 91.0))
    )
    model = again.model.model_copy(update={"sha256": "f" * 64})
    (group,) = group_records(_found(first, again.model_copy(update={"model": model}), other))
    assert [path.name for path in group.paths] == ["1.json", "2.json"]


def test_the_order_of_departures_parts_no_trials(make_trial: MakeTrial) -> None:
    """Versions of the toolkit may list the same departures in another order."""
    listed = ["epochs 2 (protocol: 100)", "mode cached (protocol: online)"]
    trials = [make_trial(RSA, seed=seed, deviations=listed[:: (1, -1)[seed]]) for seed in (0, 1)]
    assert len(group_records(_found(*trials))) == 1


def test_a_single_trial_has_no_deviation(make_trial: MakeTrial) -> None:
    """A single value has no deviation, rather than a deviation of 0."""
    (group,) = group_records(_found(make_trial(RSA, values={"top1": 90.0})))
    assert group.headline is not None
    assert group.headline.std is None
    assert group.headline.text == "90.00"


@pytest.mark.parametrize(
    "change",
    [
        {"deviations": ["mode cached"]},
        {"num_samples": 31},
        {"protocol": "mean_shift"},
        {"kind": "knn"},
        {"config": {"seed": 0, "probe": {"epochs": 3}}},
        {"epochs": 150.0},
        {"pretraining": False},
    ],
)
def test_what_differs_in_more_than_seeds_is_no_trial(
    make_trial: MakeTrial, change: dict[str, object]
) -> None:
    """Another evaluation, other images or an intermediate checkpoint makes a separate row."""
    assert len(group_records(_found(make_trial(RSA), make_trial(RSA, seed=1, **change)))) == 2


def test_detectors_of_two_engines_are_no_trials(make_trial: MakeTrial) -> None:
    """Two seeds of one engine are trials; a third by the other, alike in all else, is not."""
    one, two, other = (
        make_trial(RSA, seed=seed, kind="detection", config={"seed": seed, "engine": engine})
        for seed, engine in enumerate(("torchvision", "torchvision", "detectron2"))
    )
    groups = group_records(_found(one, two, other))
    assert [group.records for group in groups] == [(one, two), (other,)]


def test_another_training_setting_is_no_trial_and_another_place_is(make_trial: MakeTrial) -> None:
    """The rate sets runs apart; the folder and the number of loader processes do not."""
    other_rate = make_trial(RSA, "optimizer.base_lr=0.2", seed=1)
    assert len(group_records(_found(make_trial(RSA), other_rate))) == 2
    elsewhere = make_trial(RSA, "output_dir=elsewhere", "data.num_workers=0", seed=1)
    assert len(group_records(_found(make_trial(RSA), elsewhere))) == 1


def test_a_setting_that_came_later_parts_no_trials(make_trial: MakeTrial) -> None:
    """A run from before a setting existed counts as having its default."""
    old, new = (make_trial(RSA, seed=seed) for seed in (0, 1))
    assert old.model.pretraining is not None
    del old.model.pretraining["views"]["implementation"]
    batched = make_trial(RSA, "views.implementation=batched", seed=2)
    groups = group_records(_found(old, new, batched))
    assert [group.records for group in groups] == [(old, new), (batched,)]


def test_a_trial_evaluated_twice_counts_once_by_its_newest_record(make_trial: MakeTrial) -> None:
    """A copied or repeated record does not shrink the deviation."""
    old, new = (make_trial(RSA, values={"top1": top1}) for top1 in (80.0, 90.0))
    (group,) = group_records(_found(old, make_trial(RSA, seed=1, values={"top1": 92.0}), new))
    assert group.headline is not None
    assert group.headline.values == (90.0, 92.0)


def test_seeds_of_the_evaluation_are_told_where_they_differ(make_trial: MakeTrial) -> None:
    """One set of weights evaluated with two seeds is two trials, named by those."""
    trials = [make_trial(RSA, seeds=[seed], config={"seed": seed}) for seed in (0, 1)]
    (group,) = group_records(_found(*trials))
    assert group.headline is not None
    assert group.headline.labels == ("seed 0", "seed 0 (evaluation 1)")


def test_a_metric_that_one_trial_lacks_has_no_mean(make_trial: MakeTrial) -> None:
    """A mean over some of the trials would pass for one over all."""
    some = make_trial(RSA, values={"top1": 90.0})
    (group,) = group_records(_found(make_trial(RSA, seed=1), some))
    assert group.statistic("top5") is None
    assert group.statistic("top1") is not None


def test_numbers_by_unit() -> None:
    """Percentages have two decimals, others four digits, and a minus is a minus."""
    assert format_number(91.256, "%") == "91.26"
    assert format_number(-2.73159, "") == "−2.732"
    assert format_number(-0.5, "%") == "−0.50"
    assert format_number(512.0, "dimensions") == "512"


def test_an_extended_run_is_no_trial_of_one_from_scratch(
    make_trial: MakeTrial, extending: Callable[..., list[str]]
) -> None:
    """Seeds that extend runs of one schedule are trials, whatever the hashes of those."""
    scratch = make_trial(RSA)
    one, other = (
        make_trial(RSA, *extending(100, parent=parent), seed=seed)
        for seed, parent in ((0, "a"), (1, "b"))
    )
    shorter = make_trial(RSA, *extending(50), seed=2)
    twice = make_trial(RSA, *extending(100, **{"extends.before.training.epochs": 50}), seed=3)
    groups = group_records(_found(scratch, one, other, shorter, twice))
    assert [group.records for group in groups] == [(scratch,), (one, other), (shorter,), (twice,)]


def _images(**sha256: str) -> dict[str, object]:
    """Return what a record says of the images of its splits."""
    return {"images": {split: {"count": 30, "sha256": own} for split, own in sha256.items()}}


def _own(root: str, test: str, **train: str) -> dict[str, object]:
    """Return what a record says of a folder of images."""
    return {
        "data_set": "imagefolder",
        "config": {"data": {"name": "imagefolder", "root": root}},
        "details": _images(test=test, **train),
    }


def test_folders_of_other_images_part_trials(make_trial: MakeTrial) -> None:
    """All are called imagefolder: a path or the content makes two the same images."""
    records = [
        make_trial(RSA, seed=seed, **_own(root, sha256))
        for seed, root, sha256 in ((0, "land", "x"), (1, "moved", "x"), (0, "cats", "y"))
    ]
    groups = group_records(_found(*records))
    assert [group.image_set for group in groups] == ["imagefolder land", "imagefolder cats"]
    assert [len(group.records) for group in groups] == [2, 1]


def test_two_training_sets_of_one_test_set_are_two_sets(make_trial: MakeTrial) -> None:
    """Each keeps its number and its name; the seeds of each are averaged, wherever they lie."""
    folders = (("one", "a"), ("all", "b"), ("copy", "a"), ("all", "b"))
    records = [
        make_trial(RSA, seed=n // 2, values={"top1": 60.0 + n}, **_own(root, "x", train=train))
        for n, (root, train) in enumerate(folders)
    ]
    groups = group_records(_found(*records))
    assert [group.image_set for group in groups] == ["imagefolder one", "imagefolder all"]
    assert [group.headline and group.headline.values for group in groups] == [(60, 62), (61, 63)]


def test_a_folder_whose_images_changed_is_another_set(make_trial: MakeTrial) -> None:
    """Neither record replaces the other, and the name tells them apart by their hash."""
    changed = [
        make_trial(RSA, **_own("land", test * 64, train=train * 64))
        for test, train in (("x", "a"), ("x", "b"), ("y", "a"))
    ]
    groups = group_records(_found(*changed))
    assert [group.image_set for group in groups] == [
        "imagefolder land",
        "imagefolder land, 30 training images (bbbbbbbb)",
        "imagefolder land, 30 test images (yyyyyyyy)",
    ]


def test_other_images_of_a_published_set_part_trials(make_trial: MakeTrial) -> None:
    """A folder of ImageNet may hold part of it: neither record replaces the other."""
    records = [
        make_trial(RSA, seed=seed, details=_images(train=train, test="x"))
        for seed, train in ((0, "a"), (0, "b"), (1, "a"))
    ]
    groups = group_records(_found(*records))
    assert [[path.name for path in group.paths] for group in groups] == [
        ["0.json", "2.json"],
        ["1.json"],
    ]


@pytest.mark.parametrize("own", [{}, {"data_set": "imagefolder"}])
def test_a_record_that_does_not_know_its_images_is_a_trial_as_before(
    make_trial: MakeTrial, own: dict[str, object]
) -> None:
    """Older records have no hash: they stand beside the newer ones of the only images known."""
    config = {"config": {"data": {"name": "imagefolder", "root": "land"}}} if own else {}
    old, new = (
        make_trial(RSA, seed=seed, details=details, **own, **config)
        for seed, details in enumerate(({}, _images(train="a", test="x")))
    )
    assert [group.records for group in group_records(_found(old, new))] == [(old, new)]


def test_training_on_other_folders_parts_trials(make_trial: MakeTrial) -> None:
    """A folder keeps its name wherever it is stored, and another name is other images."""
    records = [
        make_trial("imagefolder/rsa", f"data.root={root}", seed=seed)
        for seed, root in enumerate(("data/land", "land", "data/cats"))
    ]
    assert [len(group.records) for group in group_records(_found(*records))] == [2, 1]


@pytest.mark.parametrize("data", [None, "x"])
def test_settings_that_name_no_images(make_trial: MakeTrial, data: object) -> None:
    """A record edited by hand is grouped under its data set's name."""
    record = make_trial("imagefolder/rsa", config={"data": data})
    assert record.model.pretraining is not None
    record.model.pretraining["data"] = data
    (group,) = group_records(_found(record))
    assert group.image_set == "imagefolder"
