import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.audit.compare import compare_records
from rsa_eval.audit.entries import name_records
from rsa_eval.audit.finding import Finding
from rsa_eval.records.record import Record
from rsa_pretrain.plumbing.atomic_files import write_text

Found = list[tuple[Path, Record]]


def findings_of(found: Found) -> list[Finding]:
    """The findings about the only group."""
    (group,) = compare_records(name_records(found))
    return list(group.findings)


def changed(found: Found, row: str, change: Callable[[Record], Record]) -> Found:
    """The same records, those of one row changed."""
    return [(path, change(record) if path.parts[-4] == row else record) for path, record in found]


def with_settings(**settings: Any) -> Callable[[Record], Record]:
    """A change of an evaluation's settings; ``a__b`` is the key b of section a."""

    def change(record: Record) -> Record:
        config = dict(record.config)
        for key, value in settings.items():
            section, _, name = key.partition("__")
            config[section] = {**config.get(section, {}), name: value} if name else value
        return record.model_copy(update={"config": config})

    return change


def test_comparable_records_have_nothing_to_find(comparable: Found) -> None:
    """Two methods, the control and random weights that agree in all else."""
    assert findings_of(comparable) == []


@pytest.mark.parametrize(
    ("settings", "severity", "topic"),
    [
        ({"data__image_size": 64}, "unfair", "transform"),
        ({"data__eval_resize": 73}, "unfair", "transform"),
        ({"data__eval_interpolation": "bicubic"}, "unfair", "transform"),
        ({"layers": ["layer3", "layer4"]}, "unfair", "layers"),
        ({"probe__base_lr": [1.0, 3.0]}, "unfair", "hyper-parameter budget"),
        ({"search__num_values": 5}, "unfair", "hyper-parameter budget"),
        ({"machine__costs": [0.1]}, "unfair", "hyper-parameter budget"),
        ({"probe__epochs": 3}, "unfair", "head epochs"),
        ({"probe__weight_decay": 0.1}, "unfair", "protocol settings"),
        ({"settings": [{"k": 5, "temperature": 0.1}]}, "note", "votes"),
        ({"precision": "bf16"}, "caution", "precision"),
        ({"feature_dtype": "fp16"}, "note", "feature type"),
    ],
)
def test_a_setting_that_differs(
    comparable: Found, settings: dict[str, Any], severity: str, topic: str
) -> None:
    """One finding, of its topic and severity, that names the rows on each side."""
    (finding,) = findings_of(changed(comparable, "rsa", with_settings(**settings)))
    assert (finding.severity, finding.topic) == (severity, topic)
    assert "in rsa" in finding.statement
    assert "in byol, control, random" in finding.statement
    assert finding.remedy
    assert {name for side in finding.sides for name in side.records} == {
        f"{row}/seed-{seed}" for row in ("byol", "rsa", "control", "random") for seed in (0, 1)
    }


@pytest.mark.parametrize(
    "settings",
    [{"seed": 7}, {"cache_dir": "x"}, {"device": "cpu"}, {"data__num_workers": 3}],
)
def test_settings_without_effect(comparable: Found, settings: dict[str, Any]) -> None:
    """Paths, seeds and speed are no difference."""
    assert findings_of(changed(comparable, "rsa", with_settings(**settings))) == []


def test_a_setting_newer_than_a_record(comparable: Found) -> None:
    """Its default describes what the record did."""
    complete = [(path, with_settings(data__image_size=32)(record)) for path, record in comparable]
    stated = changed(complete, "rsa", with_settings(probe__nesterov=False))
    assert findings_of(stated) == []
    (finding,) = findings_of(changed(complete, "rsa", with_settings(probe__nesterov=True)))
    assert finding.statement.startswith("probe.nesterov differs: False in byol")


def test_votes_say_which_is_the_headline(comparable: Found) -> None:
    """A list of votes selects nothing: the first one counts."""
    votes = [{"k": 5, "temperature": None}, {"k": 9, "temperature": 0.5}]
    (finding,) = findings_of(changed(comparable, "rsa", with_settings(settings=votes)))
    assert "2 votes, the first {k: 5} in rsa" in finding.statement


def test_test_images_that_differ(comparable: Found) -> None:
    """Unfair; the images of the same name are counted."""
    details = {"images": {"test": {"count": 30, "sha256": "99" * 32}, "train": None}}
    found = changed(
        comparable, "rsa", lambda record: record.model_copy(update={"details": details})
    )
    (finding,) = findings_of(found)
    assert (finding.severity, finding.topic) == ("unfair", "test images")
    assert "30 images (SHA-256 99999999…) in rsa" in finding.statement
    assert "30 images have the same name" in finding.statement


def test_training_images_that_differ(comparable: Found) -> None:
    """Of the classifier, by their fingerprint."""

    def change(record: Record) -> Record:
        images = record.details["images"] | {"train": {"count": 9, "sha256": "55" * 32}}
        return record.model_copy(update={"details": {"images": images}})

    (finding,) = findings_of(changed(comparable, "rsa", change))
    assert (finding.severity, finding.topic) == ("unfair", "training images")


def test_test_images_that_are_not_identified(comparable: Found) -> None:
    """A note if their number is the same, unfair if not."""
    found = changed(comparable, "rsa", lambda record: record.model_copy(update={"details": {}}))
    (finding,) = findings_of(found)
    assert (finding.severity, finding.topic) == ("note", "test images")
    fewer = changed(found, "rsa", lambda record: record.model_copy(update={"num_samples": 7}))
    (finding,) = findings_of(fewer)
    assert (finding.severity, finding.topic) == ("unfair", "test images")


@pytest.mark.parametrize(
    ("change", "severity", "topic"),
    [
        ({"protocol": "dinov2"}, "unfair", "protocol"),
        ({"deviations": ["9 epochs (protocol: 100)"]}, "caution", "deviation"),
        ({"library_versions": {"torch": "2.1"}}, "note", "library versions"),
        ({"predictions": None}, "note", "predictions"),
    ],
)
def test_a_field_that_differs(
    comparable: Found, change: dict[str, Any], severity: str, topic: str
) -> None:
    """One finding of its topic."""
    found = changed(comparable, "rsa", lambda record: record.model_copy(update=change))
    (finding,) = findings_of(found)
    assert (finding.severity, finding.topic) == (severity, topic)
    assert "rsa" in finding.statement or topic == "library versions"


def test_a_warning_of_an_evaluator(comparable: Found) -> None:
    """It is repeated with the names of its records, even if all have it."""

    def warned(record: Record) -> Record:
        details = record.details | {"warnings": ["the probe did not converge"]}
        return record.model_copy(update={"details": details})

    (finding,) = findings_of(changed(comparable, "rsa", warned))
    assert (finding.severity, finding.topic) == ("caution", "warning")
    assert finding.statement == "rsa: the probe did not converge"


def test_normalisation_that_differs(comparable: Found) -> None:
    """By the statistics of the weights, or of the data set for random ones."""
    settings = with_settings(data__mean=[0.5, 0.5, 0.5])
    (finding,) = findings_of(changed(comparable, "random", settings))
    assert (finding.severity, finding.topic) == ("caution", "normalisation")
    assert "mean [0.5, 0.5, 0.5] std [0.35, 0.35, 0.35] in random" in finding.statement


@pytest.mark.parametrize(
    ("change", "topic"),
    [
        ({"training__global_batch_size": 128}, "pretraining batch size"),
        ({"data__num_train_images": 10}, "pretraining images"),
        ({"views__weak": {"flip_probability": 0.0}}, "augmentation"),
        ({"optimizer__base_lr": 0.2}, "optimizer"),
        ({"training__precision": "bf16"}, "pretraining precision"),
    ],
)
def test_pretraining_that_differs(
    comparable: Found, with_training: Callable[..., Record], change: dict[str, Any], topic: str
) -> None:
    """A caution: the rows differ in more than the method; the control is left out."""
    found = [
        (path, with_training(record, "rsa", record.seeds[0], **change))
        if path.parts[-4] == "rsa"
        else (path, record)
        for path, record in comparable
    ]
    (finding,) = findings_of(found)
    assert (finding.severity, finding.topic) == ("caution", topic)
    assert {name for side in finding.sides for name in side.records} == {
        *("byol/seed-0", "byol/seed-1", "rsa/seed-0", "rsa/seed-1")
    }


def test_epochs_are_those_of_the_weights(comparable: Found) -> None:
    """An earlier checkpoint of the same run was trained for less."""

    def change(record: Record) -> Record:
        metadata = record.model.metadata
        assert metadata is not None
        metadata = metadata.model_copy(update={"epochs": 1.0})
        return record.model_copy(
            update={"model": record.model.model_copy(update={"metadata": metadata})}
        )

    (finding,) = findings_of(changed(comparable, "rsa", change))
    assert finding.topic == "pretraining epochs"
    assert "training.epochs is 2 in byol; 1 in rsa" in finding.statement


def test_architectures_that_differ(comparable: Found) -> None:
    """Of any row, random weights included."""

    def change(record: Record) -> Record:
        backbone = record.model.backbone.model_copy(update={"stem": "cifar"})
        return record.model_copy(
            update={"model": record.model.model_copy(update={"backbone": backbone})}
        )

    (finding,) = findings_of(changed(comparable, "random", change))
    assert (finding.severity, finding.topic) == ("caution", "architecture")


@pytest.mark.parametrize(
    ("row", "topic"), [("random", "random weights"), ("control", "BatchNorm control")]
)
def test_a_missing_baseline(comparable: Found, row: str, topic: str) -> None:
    """Self-supervised rows need random weights, and these the control."""
    (finding,) = findings_of([(path, own) for path, own in comparable if path.parts[-4] != row])
    assert (finding.severity, finding.topic) == ("caution", topic)
    assert "byol, rsa" in finding.statement


def test_seeds(comparable: Found) -> None:
    """A single seed, then unequal numbers of seeds."""
    path, record = comparable[3]
    assert path.parts[-4:-2] == ("rsa", "seed-1")
    (finding,) = findings_of([*comparable[:3], *comparable[4:]])
    assert finding.statement.startswith("rsa has a single seed")
    more = record.model_copy(update={"seeds": [2]})
    third = path.parents[2] / "seed-2" / "records" / "linear.json"
    shutil.copytree(path.parent, third.parent)
    (finding,) = findings_of([*comparable, (third, more)])
    assert "rsa has 3" in finding.statement


def test_supervised_rows_are_noted(comparable: Found, with_training: Callable[..., Record]) -> None:
    """They are references."""
    found = [
        (path, with_training(record, "supervised", record.seeds[0]))
        if path.parts[-4] == "rsa"
        else (path, record)
        for path, record in comparable
    ]
    (finding,) = findings_of(found)
    assert (finding.severity, finding.topic) == ("note", "labels")


def test_groups_are_evaluators_and_data_sets(comparable: Found) -> None:
    """Other evaluators and data sets are not compared."""
    other = [
        (path.with_stem("knn"), record.model_copy(update={"kind": "knn", "protocol": "w"}))
        for path, record in comparable
    ]
    groups = compare_records(name_records([*comparable, *other]))
    assert [group.title for group in groups] == ["knn on cifar10", "linear on cifar10"]
    assert len(groups[0].records) == 8


def test_folders_of_other_images_are_not_compared(comparable: Found) -> None:
    """Two image folders share a name and nothing else; one that moved is the same by content."""

    def placed(root: str, sha256: str) -> Found:
        images = {"images": {"test": {"count": 30, "sha256": sha256}}}
        return [
            (
                Path(root) / path.relative_to("/"),
                with_settings(data__root=root)(record).model_copy(
                    update={"data_set": "imagefolder", "details": images}
                ),
            )
            for path, record in comparable
        ]

    entries = name_records([*placed("a", "x"), *placed("b", "y"), *placed("moved", "x")])
    groups = compare_records(entries)
    assert [group.title for group in groups] == [
        "linear on imagefolder a",
        "linear on imagefolder b",
    ]
    assert [len(group.records) for group in groups] == [16, 8]


def test_subsets_of_labels_are_not_compared(comparable: Found) -> None:
    """Fine-tunings with other labels are other questions, as in a label curve."""
    found = [
        (
            path.with_stem(f"draw-{seed}"),
            with_settings(subset={"per_class": 2}, subset_seed=seed)(r),
        )
        for seed in (0, 1)
        for path, r in comparable
    ]
    titles = [group.title for group in compare_records(name_records(found))]
    assert titles == [
        "linear on cifar10, labels {per_class: 2}, draw 0",
        "linear on cifar10, labels {per_class: 2}, draw 1",
    ]


def test_a_damaged_file_of_predictions_is_named(comparable: Found) -> None:
    """It cannot be compared by image."""
    comparable[0][0].with_name("linear.predictions.npz").write_bytes(b"damaged")
    (finding,) = findings_of(comparable)
    assert (finding.severity, finding.topic) == ("caution", "predictions")
    assert "SHA-256" in finding.statement


def test_names_that_are_no_text_are_written_as_escapes(tmp_path: Path) -> None:
    """A file name of other bytes than UTF-8 ends no report."""
    write_text(tmp_path / "page.md", "run \udcff, ü")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == "run \\udcff, ü"
