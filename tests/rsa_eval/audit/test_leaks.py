import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import data_tree, write_pictures
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from rsa_eval.__main__ import main
from rsa_eval.audit.duplicates import Duplicate, find_duplicates
from rsa_eval.audit.entries import name_records
from rsa_eval.audit.finding import Finding
from rsa_eval.audit.fingerprints import fingerprint_images
from rsa_eval.audit.leak_findings import clean_accuracies, leak_group
from rsa_eval.audit.leak_page import MOST_PAIRS, write_leak_page
from rsa_eval.audit.leaks import LeakSearch, search_leaks
from rsa_eval.records.record import Record
from rsa_pretrain.data.image_set import ImageSet

Draw = Callable[..., Image.Image]
Audit = Callable[..., LeakSearch]


def as_jpeg(picture: Image.Image, quality: int = 40) -> Image.Image:
    """The picture after lossy compression."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(picture: Image.Image) -> Image.Image:
    """Without 3 % at each side."""
    width, height = picture.size
    return picture.crop(
        (width * 3 // 100, height * 3 // 100, width * 97 // 100, height * 97 // 100)
    )


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": as_jpeg,
    "cropped": cropped,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "paler": lambda picture: ImageEnhance.Contrast(picture).enhance(0.7),
    "smaller": lambda picture: picture.resize((80, 64)),
    "larger": lambda picture: picture.resize((300, 240)),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
}


def duplicates_between(
    test: dict[str, Image.Image],
    train: dict[str, Image.Image],
    root: Path,
    opened: Any,
) -> list[Duplicate]:
    """The duplicates of written pictures, judged by 32 pixels."""
    write_pictures(root, "val", test)
    write_pictures(root, "train", train)
    own, bank = (fingerprint_images(opened(root, split), split) for split in ("val", "train"))
    return find_duplicates(own, bank)


@pytest.fixture
def pictures(picture: Draw) -> dict[str, Image.Image]:
    """Forty unrelated pictures of two classes."""
    return {f"{'ab'[number % 2]}/{number:02}.png": picture(number) for number in range(40)}


@pytest.fixture
def root(tmp_path: Path, pictures: dict[str, Image.Image]) -> Path:
    """A folder with the pictures as training images."""
    return write_pictures(tmp_path / "data", "train", pictures)


@pytest.fixture
def audited(tmp_path: Path, write_entry: Callable[..., tuple[Path, Record]], opened: Any) -> Audit:
    """A function that searches the leaks of records that name an image folder."""

    def search(
        root: Path, rows: dict[str, dict[str, Any]], data_root: Path | None = None
    ) -> LeakSearch:
        found = []
        for name, changes in rows.items():
            keys = opened(root, "val").keys()
            details = {"images": {"test": None, "train": None}}
            fields = {"config": {"data": data_tree(root)}, "details": details} | changes
            fields = {"random_init": True} | fields if "model" not in changes else fields
            found.append(write_entry(name, keys, **fields))
        return search_leaks(name_records(found), data_root, with_features=False)

    return search


def findings_about(search: LeakSearch) -> list[Finding]:
    """All findings about images."""
    entries = [entry for leak in search.leaks for entry in leak.entries]
    return list(leak_group(search, entries).findings)


def test_an_exact_copy_is_found(
    pictures: dict[str, Image.Image], tmp_path: Path, opened: Any, picture: Draw
) -> None:
    """By its pixels, whatever the file's name and class."""
    test = {"a/new.png": picture(99), "b/copy.png": pictures["a/04.png"]}
    (found,) = duplicates_between(test, pictures, tmp_path, opened)
    keys = opened(tmp_path, "train").keys()
    assert found.is_exact
    assert (found.row, keys[found.other]) == (1, "a/04.png")


@pytest.mark.parametrize("name", COPIES)
def test_an_edited_copy_is_found(root: Path, name: str, audited: Audit, picture: Draw) -> None:
    """Each of ten, also by the detail of the larger images, and no other image."""
    test = {f"a/{number:02}.png": COPIES[name](picture(number)) for number in range(10)}
    new = {f"a/{number}.png": picture(number) for number in range(500, 510)}
    write_pictures(root, "val", test | new)
    _, leak = audited(root, {"x": {}}).leaks
    assert [found.row for found in leak.duplicates] == list(range(10))
    keys = leak.bank.keys()
    assert [keys[found.other][2:4] for found in leak.duplicates] == [f"{n:02}" for n in range(10)]
    assert not any(found.is_exact for found in leak.duplicates)
    assert all(found.is_mirrored == (name == "mirrored") for found in leak.duplicates)


def test_unrelated_images_are_no_duplicates(tmp_path: Path, opened: Any, picture: Draw) -> None:
    """None of 80 × 80 pairs."""
    test, train = (
        {f"a/{number}.png": picture(number) for number in numbers}
        for numbers in (range(80), range(100, 180))
    )
    assert duplicates_between(test, train, tmp_path, opened) == []


def test_images_that_share_a_background_are_no_duplicates(
    tmp_path: Path, audited: Audit, picture: Draw
) -> None:
    """They resemble each other at 32 pixels; their detail decides."""

    def with_detail(seed: int) -> Image.Image:
        scene = np.asarray(picture(77, 160, 160).filter(ImageFilter.GaussianBlur(3)), float)
        noise = np.random.default_rng(seed).normal(0, 25, (160, 160, 1))
        return Image.fromarray((scene + noise).clip(0, 255).astype(np.uint8))

    root = write_pictures(tmp_path / "data", "train", {"a/0.png": with_detail(0)})
    write_pictures(root, "val", {"a/1.png": with_detail(1)})
    test, train = (
        fingerprint_images(ImageSet.from_array("x", np.asarray(one)[None], [0], ["a"]), "x")
        for one in (with_detail(1), with_detail(0))
    )
    assert len(find_duplicates(test, train)) == 1
    _, leak = audited(root, {"x": {}}).leaks
    assert leak.duplicates == []


def test_images_without_contrast(tmp_path: Path, opened: Any, picture: Draw) -> None:
    """Only exact copies of them count."""

    def pale(seed: int) -> Image.Image:
        return Image.blend(picture(seed), Image.new("RGB", (120, 96), "grey"), 0.95)

    test = {"a/0.png": pale(0), "a/1.png": as_jpeg(pale(1), 90)}
    train = {"a/0.png": pale(0), "a/1.png": pale(1)}
    (found,) = duplicates_between(test, train, tmp_path, opened)
    assert (found.row, found.is_exact) == (0, True)


def test_tiny_images_have_exact_copies_only() -> None:
    """Eight pixels are too few to judge by resemblance."""
    pixels = np.random.default_rng(0).integers(0, 200, (6, 8, 8, 3)).astype(np.uint8)
    prints = [
        fingerprint_images(ImageSet.from_array("x", own, [0] * len(own), ["a"]), "x")
        for own in (pixels[:2], np.concatenate([pixels[1:2], pixels[:1] + 1]))
    ]
    (found,) = find_duplicates(*prints)
    assert (found.row, found.other, found.is_exact) == (1, 0, True)


def test_candidates_of_the_features_are_confirmed(picture: Draw) -> None:
    """Of pairs whose hashes differ in 16 bits, those with equal pixels; never of 24 bits."""
    grey = np.stack([np.asarray(picture(seed, 32, 32)) for seed in range(4)])
    images = ImageSet.from_array("x", grey, [0] * 4, ["a"])
    own = fingerprint_images(images, "x")
    far = fingerprint_images(images, "x")
    far.hashes[:] = own.hashes ^ np.array([0xFFFF] * 3 + [0xFFFFFF], np.uint64)
    exact = [bytes([row]) for row in range(4)]
    far.digests[:] = exact
    assert find_duplicates(own, far) == []
    pairs = np.array([[0, 0], [1, 2], [2, 2], [3, 3]])
    found = find_duplicates(own, far, pairs)
    assert [(pair.row, pair.other, pair.by_features) for pair in found] == [
        (0, 0, True),
        (2, 2, True),
    ]


def test_repeated_test_images(root: Path, audited: Audit, picture: Draw) -> None:
    """The later one is named; an image does not repeat itself."""
    test = {f"a/{number}.png": picture(number + 100) for number in range(6)}
    test |= {"b/7.png": picture(102), "b/8.png": as_jpeg(picture(103))}
    write_pictures(root, "val", test)
    search = audited(root, {"x": {}})
    within, _ = search.leaks
    assert [(pair.row, pair.other, pair.is_exact) for pair in within.duplicates] == [
        (6, 2, True),
        (7, 3, False),
    ]
    (finding,) = findings_about(search)
    assert finding.topic == "repeated test images"
    assert "2 of 8 test images" in finding.statement


def test_accuracy_without_the_leak(root: Path, audited: Audit, picture: Draw) -> None:
    """Of ten test images two are leaked and right; of the other eight, four are wrong."""
    test = {f"a/{number}.png": picture(number + 100) for number in range(10)}
    test |= {"a/3.png": picture(3), "a/5.png": as_jpeg(picture(5))}
    write_pictures(root, "val", test)
    search = audited(root, {"x": {"wrong": (0, 1, 2, 9)}})
    _, leak = search.leaks
    (own,) = clean_accuracies(leak)
    assert (own.every, own.clean, own.leaked, own.num_leaked) == (60, 50, 100, 2)
    (finding,) = findings_about(search)
    assert finding.severity == "caution"
    assert (
        "2 of 10 test images of imagefolder are among the 40 training images" in finding.statement
    )
    assert "(1 exactly, 1 nearly)" in finding.statement
    assert "60.00 on all, 50.00 without the 2 images, 100.00 on them" in finding.statement


def test_a_leak_of_one_row_only_is_unfair(
    root: Path, tmp_path: Path, audited: Audit, make_result: Callable[..., Record], picture: Draw
) -> None:
    """One backbone was pretrained on test images, its rival was not."""
    write_pictures(root, "val", {f"a/{number}.png": picture(number + 100) for number in range(4)})
    other = write_pictures(
        tmp_path / "more", "train", {"a/0.png": picture(101), "a/1.png": picture(7)}
    )
    model = make_result().model.model_copy(update={"pretraining": {"data": data_tree(other)}})
    clean = make_result().model.model_copy(update={"pretraining": {"data": data_tree(root)}})
    search = audited(root, {"x": {"model": model}, "y": {"model": clean}})
    (finding,) = findings_about(search)
    assert finding.severity == "unfair"
    assert "1 of 4 test images" in finding.statement
    assert "2 pretraining images (1 exactly, 0 nearly) of x" in finding.statement
    assert not search.unchecked


def test_images_that_are_not_here(
    root: Path, pictures: dict[str, Image.Image], tmp_path: Path, audited: Audit
) -> None:
    """They are named, never left out in silence; --data-root finds them elsewhere."""
    write_pictures(root, "val", pictures)
    gone = {"config": {"data": data_tree(tmp_path / "gone")}}
    search = audited(root, {"x": gone})
    assert not search.leaks
    statements = [found.statement for found in findings_about(search)]
    assert len(statements) == 1
    assert statements[0].startswith("not checked in x: the test images: ")
    _, leak = audited(root, {"x": gone}, root).leaks
    assert len(leak.duplicates) == 40


def test_other_images_than_the_records(
    root: Path, pictures: dict[str, Image.Image], audited: Audit
) -> None:
    """A folder whose content changed is not checked: its images are not those of the number."""
    write_pictures(root, "val", pictures)
    details = {"images": {"test": {"count": 40, "sha256": "00" * 32}, "train": None}}
    search = audited(root, {"x": {"details": details}})
    assert not search.leaks
    (reason,) = search.unchecked
    assert "are not the 40 that the record saw" in reason


def test_an_unreadable_image_is_named(
    root: Path, pictures: dict[str, Image.Image], audited: Audit
) -> None:
    """Nothing is checked of the set, and the finding says which file it is."""
    write_pictures(root, "val", pictures)
    (root / "train" / "a" / "04.png").write_bytes(b"\x89PNG damaged")
    (reason,) = audited(root, {"x": {}}).unchecked
    assert reason.startswith("the training images: ")
    assert "04.png" in reason


def test_the_page_escapes_names(tmp_path: Path, audited: Audit, picture: Draw) -> None:
    """Files and classes may be called anything."""
    name = "<script>alert(1)<'&\">.png"
    root = write_pictures(
        tmp_path / "data", "train", {f"<b>/{name}": picture(0), "a/1.png": picture(1)}
    )
    write_pictures(root, "val", {f"<b>/{name}": picture(0), "a/2.png": picture(2)})
    search = audited(root, {"<i>x": {}})
    write_leak_page(search, leak_group(search, search.leaks[0].entries), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for tag in ("<script", "<b>/", "<i>", "<b>&lt;b&gt;</b>/<"):
        assert tag not in text
    assert "&lt;script&gt;alert(1)&lt;&#39;&amp;&#34;&gt;.png" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert text.count("data:image/") == 2
    assert "http" not in text.replace("http-equiv", "")


def test_the_page_without_pictures(tmp_path: Path) -> None:
    """Nothing could be read."""
    write_leak_page(LeakSearch(), leak_group(LeakSearch(), []), tmp_path / "page.html")
    assert "No images were compared." in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_shows_a_hundred_pairs(tmp_path: Path, audited: Audit, picture: Draw) -> None:
    """And says how many there are."""
    many = {f"a/{number:03}.png": picture(number, 40, 40) for number in range(MOST_PAIRS + 3)}
    root = write_pictures(write_pictures(tmp_path / "data", "train", many), "val", many)
    search = audited(root, {"x": {}})
    write_leak_page(search, leak_group(search, search.leaks[0].entries), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The first 100 of 103 pairs are shown." in text
    assert text.count('class="pair"') == 100


@pytest.mark.real_data
def test_an_injected_leak_in_real_photographs(
    rsa_data: Path, tmp_path: Path, audited: Audit
) -> None:
    """Eight training photographs, edited and put among the test ones, are found, and no others."""
    root = tmp_path / "data"
    shutil.copytree(rsa_data / "clothing_mini", root)
    known = sorted((root / "train").glob("*/*.jpg"))[::75]
    for number, (path, edit) in enumerate(zip(known, COPIES.values(), strict=True)):
        with Image.open(path) as photograph:
            copy = edit(photograph.convert("RGB").resize((400, 320)))
        copy.save(root / "val" / path.parent.name / f"leak-{number}.jpg", quality=80)
    within, leak = audited(root, {"x": {}}).leaks
    keys, others = leak.test.keys(), leak.bank.keys()
    pairs = {keys[pair.row].split("/")[-1]: others[pair.other] for pair in leak.duplicates}
    assert pairs == {
        f"leak-{number}.jpg": f"{path.parent.name}/{path.name}" for number, path in enumerate(known)
    }
    assert within.duplicates == []


def test_the_command(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a record to a text, a page, Markdown and JSON."""
    assert main(["knn", str(run_folder)]) == 0
    capsys.readouterr()
    files = [tmp_path / name for name in ("leaks.html", "audit.md", "audit.json")]
    options = ["--out", str(files[0]), "--markdown", str(files[1]), "--json", str(files[2])]
    assert main(["audit", str(run_folder), *options, "--strict"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "knn on digits (1 record)"
    assert [line for line in lines if line.startswith("written: ")] == [
        f"written: {file}" for file in files
    ]
    tree = json.loads(files[2].read_text(encoding="utf-8"))
    assert [group["title"] for group in tree["findings"]] == ["knn on digits", "images"]
    topics = {found["topic"] for group in tree["findings"] for found in group["findings"]}
    assert {"random weights", "seeds", "checked in part"} == topics
    assert "## knn on digits" in files[1].read_text(encoding="utf-8")


def test_records_are_not_overwritten(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is another file put among them, which the next command would take for one."""
    assert main(["knn", str(run_folder)]) == 0
    (record,) = (run_folder / "records").glob("*.json")
    content = record.read_bytes()
    for path in (record, record.with_name("audit.json")):
        assert main(["audit", str(run_folder), "--no-images", "--json", str(path)]) == 2
        assert "is among the records; write it elsewhere" in capsys.readouterr().err
    assert record.read_bytes() == content
    assert not record.with_name("audit.json").exists()


def test_strict_fails_if_something_is_unfair(run_folder: Path, tmp_path: Path) -> None:
    """Without the option the exit code is 0, as the command is a report."""
    assert main(["knn", str(run_folder)]) == 0
    other = tmp_path / "other.json"
    assert main(["knn", str(run_folder), "layers=[layer3]", "--out", str(other)]) == 0
    words = ["audit", str(run_folder), str(other), "--no-images"]
    assert main(words) == 0
    assert main([*words, "--strict"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "'missing' does not exist"),
        (["RUN", "--no-images", "--out", "x.html"], "--out is about images"),
        (["RUN", "--data-root", "missing"], "--data-root 'missing' is not a folder"),
        (["RUN", "--json", "x.txt"], "--json 'x.txt' should end in .json"),
        (["EMPTY"], "nothing to report in"),
        (["BROKEN"], "is not JSON"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With exit code 2, before anything is read."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    places = {"RUN": run_folder, "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken.json"}
    assert main(["audit", *(str(places.get(word, word)) for word in words)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""
