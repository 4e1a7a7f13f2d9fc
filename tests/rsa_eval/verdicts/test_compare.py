import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rsa_eval.__main__ import main
from rsa_eval.records.record import read_record, write_record
from rsa_eval.statistics.paired import mcnemar
from rsa_eval.verdicts.compare import Comparison, compare_sides
from rsa_eval.verdicts.sides import read_side
from rsa_eval.verdicts.words import sentences, verdict_table
from rsa_pretrain.plumbing.errors import UserError

WriteTrial = Callable[..., Path]

GOOD = [1] * 80 + [0] * 20
POOR = [1] * 50 + [0] * 50
NEAR = [1] * 79 + [0] * 21


def compare(first: list[Path], second: list[Path], **options: object) -> Comparison:
    """Compare two sides as the command does."""
    return compare_sides(read_side(first), read_side(second), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "margin", "decision", "words"),
    [
        (GOOD, POOR, None, "better", "{a} is better than {b} in top1 of knn on cifar10 (+30.00"),
        (POOR, GOOD, None, "worse", "{a} is worse than {b} in top1 of knn on cifar10 (−30.00"),
        (GOOD, NEAR, None, "no difference shown", "No difference between {a} and {b} is shown"),
        (GOOD, GOOD, 10.0, "equivalent", "{a} and {b} are equivalent within 10 points in top1"),
        # A difference that is real and yet within what was said not to matter.
        (GOOD, POOR, 60.0, "equivalent", "{a} and {b} are equivalent within 60 points"),
        (GOOD, POOR, 1.0, "better", "{a} is better than {b}"),
    ],
)
def test_each_decision_and_its_sentence(
    write_trial: WriteTrial,
    first: list[int],
    second: list[int],
    margin: float | None,
    decision: str,
    words: str,
) -> None:
    """One of four words, in a sentence that names both models, the interval and the test."""
    ours, theirs = write_trial("a", first), write_trial("b", second)
    found = compare([ours], [theirs], margin=margin)
    (verdict,) = found.verdicts
    assert verdict.decision == decision
    assert (found.first, found.second) == (str(ours), str(theirs))
    (sentence,) = sentences(found)
    assert sentence.startswith(words.format(a=ours, b=theirs))
    assert "95 % interval" in sentence
    assert sentence.endswith("Each is one trained network: other seeds may differ.")
    assert decision in verdict_table(found)
    is_asked = margin is not None and decision != "equivalent"
    assert ("nor are they shown to be equivalent within 1 points (p = " in sentence) == is_asked


def test_no_difference_says_what_would_settle_it(write_trial: WriteTrial) -> None:
    """The sentence names the difference that the design detects, and the images it lacks."""
    found = compare([write_trial("a", GOOD)], [write_trial("b", NEAR)])
    needed = found.verdicts[0].needed
    (sentence,) = sentences(found)
    smallest = f"{needed.smallest_difference:.2f} points would be shown with a power of 80 %"
    assert smallest in sentence
    assert f"if it is the true one, with about {needed.images:,} test images" in sentence
    identical = sentences(compare([write_trial("c", GOOD)], [write_trial("d", GOOD)]))
    assert "true one" not in identical[0]
    few = sentences(compare([write_trial("e", [1])], [write_trial("f", [0])]))
    assert "no difference would be, as so little was measured" in few[0]


def test_several_evaluations_are_adjusted_together(write_trial: WriteTrial, tmp_path: Path) -> None:
    """Holm doubles the smallest of two p-values, and a sentence counts the decisions."""
    for kind, right in (("knn", GOOD), ("linear", NEAR)):
        write_trial("a", right, kind=kind)
        write_trial("b", POOR if kind == "knn" else GOOD, kind=kind)
    found = compare([tmp_path / "a"], [tmp_path / "b"])
    by_kind = {verdict.title: verdict for verdict in found.verdicts}
    knn = by_kind["knn on cifar10"]
    assert knn.adjusted_p == pytest.approx(2 * mcnemar(30, 0))
    assert by_kind["linear on cifar10"].adjusted_p == 1
    *_, overall = sentences(found)
    assert overall == (
        f"Of 2 evaluations, in 1 {tmp_path / 'a'} is better than {tmp_path / 'b'}, in 1 no "
        "difference is shown."
    )
    assert "adjusted for 2 evaluations" in sentences(found)[0]


def test_groups_of_seeds(write_trial: WriteTrial, tmp_path: Path) -> None:
    """Three seeds a side are one row: means, and a test over seeds and images."""
    rng = np.random.default_rng(3)
    for name, share in (("a", 0.8), ("b", 0.4)):
        for seed in range(3):
            write_trial(f"{name}/seed-{seed}", list(rng.random(200) < share), seed=seed)
    found = compare([tmp_path / "a"], [tmp_path / "b"])
    (verdict,) = found.verdicts
    assert verdict.decision == "better"
    assert verdict.seeds == (("seed 0", "seed 1", "seed 2"),) * 2
    assert len(verdict.difference.first) == 3
    assert "(3 seeds)" in verdict_table(found)
    assert "other seeds may differ" not in sentences(found)[0]
    paired = compare([tmp_path / "a"], [tmp_path / "b"], is_paired=True)
    assert paired.verdicts[0].difference.seeds is not None
    assert paired.verdicts[0].difference.seeds.is_paired
    files = sorted((tmp_path / "b").rglob("*.json"))
    with pytest.raises(UserError, match=r"seeds 0, 1, 2 and 0, 1; leave out --paired"):
        compare([tmp_path / "a"], files[:2], is_paired=True)


def test_older_records_are_compared_over_seeds_only(write_trial: WriteTrial) -> None:
    """Without answers by image, several seeds of both can be compared and single ones cannot."""
    sides = [
        [
            write_trial(f"{name}{seed}", None, seed=seed, values={"top1": value + seed})
            for seed in range(3)
        ]
        for name, value in (("a", 70.0), ("b", 40.0))
    ]
    found = compare(*sides)
    assert found.verdicts[0].decision == "better"
    assert "It holds for these test images" in sentences(found)[0]
    with pytest.raises(UserError, match=r"keeps no answers by image, .* evaluate again"):
        compare(sides[0][:1], sides[1])


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "fewer images": (
        {"right": POOR[:99]},
        r"have different test images: 100 and 99 images, 1 only in the first: 99\.jpg; evaluate",
    ),
    "other images": (
        {"right": POOR, "keys": ["x.jpg", *(f"{number}.jpg" for number in range(1, 100))]},
        r"100 and 100 images, 1 only in the first: 0\.jpg; 1 only in the second: x\.jpg; evaluate",
    ),
    "another order": (
        {"right": POOR, "keys": [f"{number}.jpg" for number in reversed(range(100))]},
        "100 and 100 images, in another order",
    ),
    "other classes": (
        {"right": POOR, "labels": [0] * 99 + [1]},
        r"give 1 of 100 test images another class: 99\.jpg",
    ),
    "other files": (
        {"right": POOR, "details": {"images": {"test": {"count": 100, "sha256": "b"}}}},
        "test images of the same names that differ in their files",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_images_are_refused_with_the_difference(
    write_trial: WriteTrial, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """One error line and exit code 2; nothing is compared on the images in common."""
    changes, message = REFUSED[case]
    details = {"images": {"test": {"count": 100, "sha256": "a"}}}
    ours = write_trial("a", GOOD, details=details)
    theirs = write_trial("b", **changes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        compare([ours], [theirs])
    assert main(["compare", str(ours), str(theirs)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_sides_that_cannot_be_compared(write_trial: WriteTrial, tmp_path: Path) -> None:
    """Two models on one side, no shared evaluation, an unknown metric: each says what to do."""
    ours, theirs = write_trial("a", GOOD), write_trial("b", POOR)
    with pytest.raises(UserError, match=r"found two in knn on cifar10: .*; give each model as"):
        read_side([tmp_path])
    other = write_trial("c", POOR, kind="linear")
    with pytest.raises(UserError, match=r"share no evaluation: only .* has knn on cifar10"):
        compare([ours], [other])
    with pytest.raises(UserError, match=r"by 'top7'; expected one of top1 or mean_per_class"):
        compare([ours], [theirs], metric="top7")
    with pytest.raises(UserError, match="is a record of both models"):
        compare([ours], [ours])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=r"contains no record .* 'rsa-eval knn"):
        read_side([tmp_path / "empty"])


def test_evaluations_without_the_metric_are_left_out(
    write_trial: WriteTrial, tmp_path: Path
) -> None:
    """The others are compared all the same."""
    for name, right in (("a", GOOD), ("b", POOR)):
        write_trial(name, right)
        write_trial(name, None, kind="diagnostics", values={"rankme": 3.0}, headline="rankme")
    found = compare([tmp_path / "a"], [tmp_path / "b"])
    assert [verdict.title for verdict in found.verdicts] == ["knn on cifar10"]
    assert found.left_out[0].startswith("diagnostics on cifar10: ")


def test_other_seeds_of_an_evaluation_are_no_other_trials(write_trial: WriteTrial) -> None:
    """Two records of one network count once."""
    ours = [write_trial("a", GOOD), write_trial("a", GOOD, kind="linear")]
    again = read_record(ours[0]).model_copy(update={"seeds": [5]})
    copy = ours[0].with_name("again.json")
    write_record(again, copy)
    found = compare([ours[0], copy], [write_trial("b", POOR)])
    assert found.verdicts[0].seeds[0] == ("seed 0",)
    assert found.verdicts[0].difference.seeds is None


def test_equivalent_and_yet_different(write_trial: WriteTrial) -> None:
    """The sentence says both."""
    found = compare([write_trial("a", GOOD)], [write_trial("b", POOR)], margin=60)
    (sentence,) = sentences(found)
    assert "are equivalent within 60 points" in sentence
    assert "although the difference itself is shown (p < 0.0001)" in sentence


def test_the_records_are_not_overwritten(
    write_trial: WriteTrial, capsys: pytest.CaptureFixture[str]
) -> None:
    """An output among the records is refused before anything is compared."""
    ours, theirs = write_trial("a", GOOD), write_trial("b", POOR)
    assert main(["compare", str(ours), str(theirs), "--json", str(ours)]) == 2
    assert "is among the records; write it elsewhere" in capsys.readouterr().err
    assert read_record(ours).headline == "top1"


def test_unlike_settings_are_noted(write_trial: WriteTrial, tmp_path: Path) -> None:
    """Comparing layers of one checkpoint is meant, so it is done and said, also in Markdown."""
    ours = write_trial("a", GOOD, config={"layers": ["layer4"]})
    theirs = write_trial("b", POOR, config={"layers": ["layer3"]})
    (verdict,) = compare([ours], [theirs]).verdicts
    assert verdict.notes == ("settings differ: layers ['layer4'] | ['layer3']",)
    page = tmp_path / "page.md"
    assert main(["compare", str(ours), str(theirs), "--markdown", str(page)]) == 0
    assert "knn on cifar10: settings differ: layers" in page.read_text()
    with pytest.raises(UserError, match="a side has a single one; leave out --paired"):
        compare([ours], [theirs], is_paired=True)


def test_the_command_writes_every_form(
    write_trial: WriteTrial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table and sentence on the screen; Markdown, JSON and a figure in files."""
    ours, theirs = write_trial("a", GOOD), write_trial("b", POOR)
    files = {name: tmp_path / f"out.{name}" for name in ("md", "json", "png")}
    words = ["--markdown", files["md"], "--json", files["json"], "--figure", files["png"]]
    assert main(["compare", str(ours), str(theirs), *map(str, words), "--margin", "2"]) == 0
    printed = capsys.readouterr().out
    assert "+30.00" in printed
    assert "is better than" in printed
    tree = json.loads(files["json"].read_text())
    assert tree["verdicts"][0]["decision"] == "better"
    assert tree["verdicts"][0]["difference"]["value"] == pytest.approx(30)
    assert tree["sentences"][0] in printed
    assert "| knn on cifar10 | top1 |" in files["md"].read_text()
    assert files["png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.json"], "expected two models, found 1; to compare several seeds, give A… --against"),
        (["a.json", "b.json", "c.json"], "expected two models, found 3"),
        (["a.json", "b.json"], "'a.json' does not exist"),
        (["a", "b", "--margin", "0"], "expected points above 0 and up to 100, found '0'"),
        (["a", "b", "--json", "x.txt"], "--json 'x.txt' should end in .json"),
    ],
)
def test_wrong_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    """One error line and exit code 2."""
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["compare", *words])
    except SystemExit as stopped:
        code = stopped.code  # type: ignore[assignment]
    assert code == 2
    assert message in capsys.readouterr().err


def test_other_training_images_are_noted_and_equal_ones_preferred(
    write_trial: WriteTrial, tmp_path: Path
) -> None:
    """Each of two training sets of one test set is paired with itself, the other with a note."""
    for name, right in (("a/one", GOOD), ("a/all", NEAR), ("b/one", POOR), ("b/all", POOR)):
        train = {"count": 60 + len(name), "sha256": name[2:] * 3}
        images = {"train": train, "test": {"count": 40, "sha256": "x"}}
        write_trial(name, right, details={"images": images})
    found = compare([tmp_path / "a"], [tmp_path / "b"])
    assert [verdict.notes for verdict in found.verdicts] == [(), ()]
    assert len({verdict.difference.value for verdict in found.verdicts}) == 2
    (verdict,) = compare([tmp_path / "a" / "one"], [tmp_path / "b" / "all"]).verdicts
    note = "settings differ: 65 training images (oneoneon) | 65 training images (allallal)"
    assert verdict.notes == (note,)


def _images(train: str, test: str) -> dict[str, object]:
    """Return a record's details on 60 training images and 100 test images."""
    splits = {"train": {"count": 60, "sha256": train}, "test": {"count": 100, "sha256": test}}
    return {"images": splits}


def test_two_test_sets_of_one_name_are_two_evaluations_of_one_model(
    write_trial: WriteTrial, tmp_path: Path
) -> None:
    """Each is paired with the same images, as evaluations on other training images are."""
    for name, right in (("a/old", GOOD), ("a/new", NEAR), ("b/old", POOR), ("b/new", POOR)):
        write_trial(name, right, details=_images("train", name[2:]))
    found = compare([tmp_path / "a"], [tmp_path / "b"])
    assert [verdict.notes for verdict in found.verdicts] == [(), ()]
    values = [verdict.difference.value for verdict in found.verdicts]
    assert values == pytest.approx([29, 30])


def test_other_test_images_are_noted(write_trial: WriteTrial) -> None:
    """Seeds without answers by image are compared on whatever images they were tested."""
    sides = [
        [
            write_trial(f"{name}{seed}", None, seed=seed, details=_images("train", test))
            for seed in range(2)
        ]
        for name, test in (("a", "0123456789"), ("b", "abcdefghij"))
    ]
    (verdict,) = compare(*sides).verdicts
    note = "settings differ: 100 test images (01234567) | 100 test images (abcdefgh)"
    assert verdict.notes == (note,)


def test_an_older_first_seed_hides_no_other_training_images(write_trial: WriteTrial) -> None:
    """A record without hashes is on the images of the other seeds, which the note tells."""
    sides = [
        [
            write_trial(f"{name}0", GOOD, seed=0),
            write_trial(f"{name}1", NEAR, seed=1, details=_images(train, "test")),
        ]
        for name, train in (("a", "0123456789"), ("b", "abcdefghij"))
    ]
    (verdict,) = compare(*sides).verdicts
    note = "settings differ: 60 training images (01234567) | 60 training images (abcdefgh)"
    assert verdict.notes == (note,)


def test_folders_of_images_are_compared_with_themselves(
    write_trial: WriteTrial, tmp_path: Path
) -> None:
    """Two folders share evaluator and data set's name; each is paired with the same images."""
    for model, right in (("a", GOOD), ("b", POOR)):
        for root in ("land", "cats"):
            write_trial(
                f"{model}/{root}",
                right if root == "land" else NEAR,
                data_set="imagefolder",
                config={"data": {"name": "imagefolder", "root": root}},
            )
    found = compare([tmp_path / "a"], [tmp_path / "b"])
    assert {verdict.title: verdict.decision for verdict in found.verdicts} == {
        "knn on imagefolder cats": "no difference shown",
        "knn on imagefolder land": "better",
    }
