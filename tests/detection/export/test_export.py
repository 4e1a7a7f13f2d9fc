"""Detectors as files of other runtimes."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from narrow import is_narrow
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from detection.__main__ import main
from detection.commands import export as command
from detection.engines.torchvision.boxes import at_most, clip_to_image, suppress
from detection.engines.torchvision.detector import MaskRCNN, build_detector
from detection.engines.torchvision.loading import load_detector
from detection.engines.torchvision.regions import Detections
from detection.exchange.whole_detector import exchange
from detection.export import onnx_file, proof, write
from detection.export.exported_detector import ExportedDetector
from detection.export.graph import MARK, RunDetector
from detection.feeding.samples import TestSample
from detection.job.detector_card import CARD_KEY, make_card
from detection.job.trunk import load_trunk
from detection.recipe.recipe import InputConfig, Recipe
from rsa_pretrain.__main__ import main as pretrain_main
from rsa_pretrain.data.read_settings import DEFAULT_RULES
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import MODEL_FILE, LoadedBackbone, save_tensors

pytestmark = pytest.mark.usefixtures("narrow_detector")

WriteCheckpoint = Callable[..., LoadedBackbone]
IMAGES = [{"id": 1, "file_name": "1.png", "height": 8, "width": 8}]
NAMES = {4: "cell", 7: "debris", 9: "fibre"}
INPUT = {"test_short_side_pixels": 96, "max_side_pixels": 160}
SAMPLING = {"proposals_per_image": 140, "detections_per_image": 105}
ANCHORS = {
    "anchor_sizes_pixels": [12, 24, 40, 80, 160],
    "anchor_aspect_ratios": [0.4, 0.9],
}


@pytest.fixture(scope="module")
def write_detector(
    write_checkpoint: WriteCheckpoint,
    make_recipe_at: Callable[..., Recipe],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[bool], Path]:
    """Write a detector of three classes, with masks or without, whose scores are well apart.

    Its anchors, input size and numbers of proposals and detections are no default's.
    """

    @cache
    def make(has_masks: bool, narrow: bool) -> Path:
        folder = tmp_path_factory.mktemp("detector")
        loaded = write_checkpoint()
        model = {**ANCHORS, "mask_head": has_masks}
        recipe = make_recipe_at(folder / "run", model=model, input=INPUT, sampling=SAMPLING)
        torch.manual_seed(3)
        detector = build_detector(recipe, load_trunk(loaded.path, recipe.model), len(NAMES))
        with torch.no_grad():
            detector.roi_heads.box_predictor.cls_score.weight *= 3
        metadata = loaded.metadata.model_copy(update={"method": "mask_rcnn"})
        notes = {CARD_KEY: make_card(recipe, NAMES).model_dump_json()}
        file = folder / "checkpoints" / "step-00000040" / MODEL_FILE
        save_tensors(file, detector.state_dict(), metadata, notes)
        return file

    return lambda has_masks: make(has_masks, is_narrow())


@pytest.fixture
def detector_file(write_detector: Callable[[bool], Path]) -> Path:
    """A detector with masks."""
    return write_detector(True)


@pytest.fixture
def detector(detector_file: Path) -> MaskRCNN:
    """The same, loaded."""
    return load_detector(detector_file).detector


def _require(kind: str) -> None:
    for package in write.DETECTOR_FORMATS[kind].packages:
        pytest.importorskip(package, reason=f"{package} is not installed")


def _noise(height: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (3, height, width), generator=random, dtype=torch.uint8)


def _detect(detector: MaskRCNN, image: Tensor, threshold: float = 0.05) -> Detections:
    with torch.inference_mode():
        (found,) = detector([TestSample(image, 0, *image.shape[1:])], threshold)
    assert isinstance(found, dict)
    return found


def _export(detector: Path, out: Path, kind: str, *options: str) -> int:
    return main(["export", str(detector), str(out), "--to", kind, *options])


def _write_categories(path: Path, names: Mapping[int, str]) -> Path:
    categories = [{"id": number, "name": name} for number, name in names.items()]
    tree = {"images": IMAGES, "annotations": [], "categories": categories}
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "has_masks"),
    [
        ("torchscript", True),
        ("torchscript", False),
        ("onnx", True),  # what it lacks without masks is not in the graph that it translates
    ],
)
def test_the_file_finds_what_the_engine_finds(
    write_detector: Callable[[bool], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    has_masks: bool,
) -> None:
    """At any image size and number of detections, none too; it says of what and for what."""
    _require(kind)
    detector_file, target = write_detector(has_masks), write.DETECTOR_FORMATS[kind]
    out = tmp_path / f"detector{target.suffix}"
    with warnings.catch_warnings(action="always", record=True) as told:
        assert _export(detector_file.parents[2], out, kind) == 0
    assert {entry.category for entry in told} <= {DeprecationWarning}  # pycocotools', on drawing
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert "detections of score above 0.05 on 3 images match the engine's one to one" in printed
    assert "proof     0 detections" not in printed
    assert "labels    cell, debris, fibre" in printed
    run, detector = target.load(out), load_detector(detector_file).detector
    sizes = [(64, 64), (33, 41), (97, 250), (201, 130)]
    images = {f"{width}x{height}": _noise(height, width) for height, width in sizes}
    assert proof.prove(run, detector, images).num_detections > 100
    image = images["64x64"]
    best, none = run(image, 0), run(image, 1)
    assert len(best["scores"]) == SAMPLING["detections_per_image"]
    middle = float(best["scores"][49:51].mean())
    assert len(run(image, middle)["scores"]) == 50
    assert {key: value.shape for key, value in none.items()} == {
        key: value.shape for key, value in _detect(detector, image, 1).items()
    }
    assert (len(none["scores"]), "masks" in none) == (0, has_masks)
    _check_properties(out, kind, detector_file)


def _check_properties(out: Path, kind: str, detector_file: Path) -> None:
    """Read what the file tells, and run it without a threshold, as its users do."""
    image = _noise(80, 90)
    found = _properties(out, kind)
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        assert [value.shape for value in session.get_inputs()] == [[3, "height", "width"]]
        scores = torch.from_numpy(session.run(["scores"], {"image": image.numpy()})[0])
    else:
        scores = torch.jit.load(out)(image)["scores"]  # type: ignore[no-untyped-call]
    values = {key: json.loads(found[key]) for key in found if key not in ("input", "output")}
    assert values.pop(MARK)["method"] == "mask_rcnn"
    assert values == {
        "source_sha256": hashlib.sha256(detector_file.read_bytes()).hexdigest(),
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
        "short_side_pixels": 96,
        "max_side_pixels": 160,
        "exif_orientation": True,
        **SAMPLING,
        "score_threshold": 0.05,
    }
    assert "RGB, uint8, (3, H, W)" in found["input"]
    detector = load_detector(detector_file).detector
    assert ("masks (D, 28, 28)" in found["output"]) is detector.roi_heads.has_mask_head
    expected = _detect(detector, image)["scores"]
    torch.testing.assert_close(scores, expected, rtol=0, atol=proof.TOLERANCES["scores"])


def _properties(out: Path, kind: str) -> dict[str, str]:
    """Read the texts in a file by the kind's own means."""
    if kind == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    with zipfile.ZipFile(out) as archive:
        names = [name for name in archive.namelist() if "/extra/" in name]
        return {name.rpartition("/")[2]: archive.read(name).decode() for name in names}


@pytest.mark.full_width
@pytest.mark.parametrize("form", ["run", "detectron2's own"])
def test_a_detector_of_detectron2(
    detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """A run of the detectron2 engine, and a detectron2 file without category names."""
    run = tmp_path / "run"
    file = run / "checkpoints" / "model_final.pth"
    exchange(detector_file, file)
    names, source = list(NAMES.values()), run
    if form == "detectron2's own":
        torch.save({"model": torch.load(file, weights_only=True)["model"]}, file)
        names, source = [f"category {number}" for number in (1, 2, 3)], file
    out = tmp_path / "detector.pt"
    assert _export(source, out, "torchscript") == 0
    printed = capsys.readouterr().out
    assert f"labels    {', '.join(names)}\n" in printed
    found = _properties(out, "torchscript")
    assert json.loads(found["source_sha256"]) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [json.loads(found[f"{side}_side_pixels"]) for side in ("short", "max")] == [96, 160]
    image, detector = _noise(90, 120), load_detector(detector_file).detector
    run_file = write.DETECTOR_FORMATS["torchscript"].load(out)
    for key, value in _detect(detector, image).items():
        torch.testing.assert_close(run_file(image, 0.05)[key], value, rtol=0, atol=1e-4)


def test_options_replace_what_the_detector_says(
    detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Input size and categories are those of the options, as with predict; OUT is replaced."""
    given = _write_categories(tmp_path / "categories.json", {2: "b", 1: "a", 30: "c"})
    options = ["--short-side", "64", "--max-side", "80", "--categories", str(given)]
    out = tmp_path / "detector.pt"
    assert _export(detector_file, out, "torchscript") == 0
    assert "labels    cell, debris, fibre\n" in capsys.readouterr().out
    assert _export(detector_file, out, "torchscript", *options) == 0
    printed = capsys.readouterr().out
    assert "labels    a, b, c\n" in printed
    assert "short side of 64 pixels, or less so that the long side is at most 80;" in printed
    found = _properties(out, "torchscript")
    assert [json.loads(found[f"{side}_side_pixels"]) for side in ("short", "max")] == [64, 80]
    assert [entry["id"] for entry in json.loads(found["categories"])] == [1, 2, 30]


def _moved(found: Detections, key: str, by: float) -> Detections:
    return {**found, key: found[key] + by}


def _without_first(found: Detections) -> Detections:
    return {key: value[1:] for key, value in found.items()}


def _with_another(found: Detections) -> Detections:
    return {
        key: torch.cat([value[:1] + int(key == "boxes"), value]) for key, value in found.items()
    }


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda found: _moved(found, "boxes", 0.01), "4 of the detector's 4"),
        (lambda found: _moved(found, "scores", 1e-3), "4 of the detector's 4"),
        (lambda found: _moved(found, "masks", 1e-3), "4 of the detector's 4"),
        (lambda found: _moved(found, "labels", 1), "4 of the detector's 4"),
        (_without_first, "1 of the detector's 4 .* 0 of the file's 3"),
        (_with_another, "0 of the detector's 4 .* 1 of the file's 5"),
    ],
)
def test_each_difference_is_refused(
    change: Callable[[Detections], Detections], counts: str
) -> None:
    """A wrong box, score, mask or label, a missing or an extra detection names the image."""
    engine = _engine([0.9, 0.8, 0.7, 0.6])
    image = _noise(40, 50)
    with pytest.raises(UserError, match=f"in 'photo', at score threshold 0.05: {counts}"):
        proof.prove(lambda *_: change(_detect(engine, image)), engine, {"photo": image})


def _engine(scores: list[float], most: int = 100) -> Any:
    """Stand in for a detector that finds the same four boxes everywhere."""

    def detect(_: object, threshold: float) -> list[Detections]:
        kept = torch.tensor(scores) > threshold
        return [
            {
                "boxes": torch.arange(4.0 * len(scores)).reshape(-1, 4)[kept],
                "labels": torch.ones(len(scores), dtype=torch.int64)[kept],
                "scores": torch.tensor(scores)[kept],
                "masks": torch.linspace(0, 1, 28 * 28).expand(len(scores), -1)[kept],
            }
        ]

    heads = SimpleNamespace(detections_per_image=most)

    class Engine:
        roi_heads = heads

        def __call__(self, samples: object, threshold: float) -> list[Detections]:
            return detect(samples, threshold)

    return Engine()


@pytest.mark.parametrize(
    ("scores", "most", "is_accepted"),
    [
        ([0.9, 0.8, 0.05 + 5e-5], 100, True),  # the threshold decides
        ([0.9, 0.8, 0.7], 3, True),  # the number kept decides
        ([0.9, 0.8, 0.7], 100, False),  # nothing does
        ([0.9, 0.8, 0.05 + 5e-4], 100, False),
    ],
)
def test_only_what_rounding_decides_may_be_missing(
    scores: list[float], most: int, is_accepted: bool
) -> None:
    """The last detection kept may be another one, to the tolerance of scores; no other may."""
    engine, image = _engine(scores, most), _noise(40, 50)
    run: RunDetector = lambda *_: {key: value[:2] for key, value in _detect(engine, image).items()}  # noqa: E731
    if is_accepted:
        assert proof.prove(run, engine, {"photo": image}).num_detections == 2
    else:
        with pytest.raises(UserError, match="1 of the detector's 3 detections"):
            proof.prove(run, engine, {"photo": image})


def test_differences_are_the_largest(detector: MaskRCNN) -> None:
    """The proof reports the largest differences between the two, over all images."""
    images = {"first": _noise(64, 96), "second": _noise(80, 70)}

    def run(image: Tensor, threshold: float) -> Detections:
        by = 1e-4 if image.shape[1] == 64 else 4e-4
        return _moved(_detect(detector, image, threshold), "boxes", by)

    done = proof.prove(run, detector, images)
    count = sum(len(_detect(detector, image)["scores"]) for image in images.values())
    assert (done.num_images, done.num_detections, done.score_threshold) == (2, count, 0.05)
    assert done.largest["boxes"] == pytest.approx(4e-4, rel=0.1)
    assert (done.largest["scores"], done.largest["masks"]) == (0, 0)


def test_a_detector_that_finds_nothing_is_proven_at_threshold_0(detector_file: Path) -> None:
    """No detection is no proof: then everything that is scored is compared."""
    detector = load_detector(detector_file).detector
    with torch.no_grad():
        detector.roi_heads.box_predictor.cls_score.weight *= 0.01
        detector.roi_heads.box_predictor.cls_score.bias[0] = 20
    image = _noise(64, 64)
    assert len(_detect(detector, image)["scores"]) == 0
    done = proof.prove(lambda *inputs: _detect(detector, *inputs), detector, {"photo": image})
    assert done.score_threshold == 0
    assert done.num_detections > 0


def test_an_image_without_detections_is_proven_at_threshold_0() -> None:
    """Every image counts in the proof: here one of two has a lower score."""
    seen = {40: _engine([0.9, 0.8]), 60: _engine([0.03, 0.02])}

    class Engine:
        roi_heads = seen[40].roi_heads

        def __call__(self, samples: Sequence[TestSample], threshold: float) -> list[Detections]:
            found: list[Detections] = seen[samples[0].height](samples, threshold)
            return found

    engine: Any = Engine()
    images = {"full": _noise(40, 50), "bare": _noise(60, 50)}
    done = proof.prove(lambda *inputs: _detect(engine, *inputs), engine, images)
    assert (done.score_threshold, done.num_detections) == (0, 4)


def test_a_tampered_file_is_not_written(detector_file: Path, tmp_path: Path) -> None:
    """A file with one weight changed is refused, an earlier one stays, and no part is left."""
    target = write.DETECTOR_FORMATS["torchscript"]
    loaded = load_detector(detector_file)
    exported = ExportedDetector(
        loaded, [{"id": n, "name": NAMES[n]} for n in NAMES], loaded.card.input
    )

    def tampered(detector: MaskRCNN, properties: Any, path: Path) -> None:
        with torch.no_grad():
            detector.roi_heads.box_predictor.bbox_pred.bias += 0.01
        target.write(detector, properties, path)
        with torch.no_grad():
            detector.roi_heads.box_predictor.bbox_pred.bias -= 0.01

    out = tmp_path / "detector.pt"
    out.write_text(MARK)
    with pytest.raises(UserError, match="detections differ from the detector's in 'photo'"):
        write.export_detector(
            exported, replace(target, write=tampered), out, {"photo": _noise(64, 64)}
        )
    assert out.read_text() == MARK
    assert [path.name for path in tmp_path.iterdir()] == ["detector.pt"]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("detector.pth", "torchscript", "should end in .pt"),
        ("detector.pt", "onnx", "should end in .onnx"),
        ("folder.onnx", "onnx", "is a folder; name a file in it"),
        ("foreign.onnx", "onnx", "exists and was not written by this command"),
        ("foreign.pt", "torchscript", "exists and was not written by this command"),
    ],
)
def test_a_wrong_out_is_one_error(
    detector_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    kind: str,
    message: str,
) -> None:
    """A misnamed output, a folder or a foreign file is refused before any work and untouched."""
    (tmp_path / "folder.onnx").mkdir()
    for foreign in ("foreign.onnx", "foreign.pt"):
        (tmp_path / foreign).write_bytes(b"somebody's model")
    before = sorted(tmp_path.iterdir())
    assert _export(detector_file, tmp_path / name, kind) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "foreign.pt").read_bytes() == b"somebody's model"


def test_other_mistakes_are_one_error(
    detector_file: Path,
    write_checkpoint: WriteCheckpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backbone, an image that is none, too few categories, a package that is not installed."""
    out = tmp_path / "detector.pt"
    assert _export(write_checkpoint().path, out, "torchscript") == 2
    assert "is not a detector: its method is 'rsa'" in capsys.readouterr().err
    broken = tmp_path / "photo.png"
    broken.write_bytes(b"no image")
    assert _export(detector_file, out, "torchscript", "--images", str(broken)) == 2
    assert f"image '{broken}' cannot be decoded" in capsys.readouterr().err
    assert _export(detector_file, out, "torchscript", "--images", str(tmp_path / "nowhere")) == 2
    assert "nowhere' cannot be decoded: No such file" in capsys.readouterr().err
    few = _write_categories(tmp_path / "categories.json", {1: "a", 2: "b"})
    assert _export(detector_file, out, "torchscript", "--categories", str(few)) == 2
    assert "has 3 categories" in capsys.readouterr().err
    absent = replace(write.DETECTOR_FORMATS["onnx"], packages=("onnx", "no_such_package"))
    monkeypatch.setitem(write.DETECTOR_FORMATS, "onnx", absent)
    assert _export(detector_file, tmp_path / "detector.onnx", "onnx") == 2
    error = capsys.readouterr().err
    assert "export to onnx needs no_such_package; pip install no_such_package" in error
    assert not out.exists()


def test_three_photographs_of_a_folder_prove(tmp_path: Path) -> None:
    """The first three by name; the fourth, broken in its data, is not looked at."""
    for number in range(4):
        pixels = _noise(50 + 10 * number, 60).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    broken = tmp_path / "3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    images = proof.proof_images([tmp_path], InputConfig(), DEFAULT_RULES)
    assert list(images) == [str(tmp_path / f"{number}.png") for number in range(3)]


def test_proof_images(tmp_path: Path) -> None:
    """Three shapes are drawn, at the detector's input size; photographs, upright, come first."""
    settings = InputConfig(test_short_side_pixels=96, max_side_pixels=160)
    images = list(proof.proof_images([], settings, DEFAULT_RULES).values())
    assert [tuple(image.shape) for image in images] == [(3, 96, 128), (3, 96, 96), (3, 160, 80)]
    assert len({image.float().mean().item() for image in images}) == 3
    again = proof.proof_images([], settings, DEFAULT_RULES).values()
    assert all(map(torch.equal, images, again))
    exif = Image.Exif()
    exif[274] = 6  # the camera was held upright
    photo = tmp_path / "photo.png"
    Image.new("RGB", (240, 120), (9, 8, 7)).save(photo, exif=exif)
    upright = proof.proof_images([photo], settings, DEFAULT_RULES)
    assert next(iter(upright)) == str(photo)
    assert [tuple(image.shape) for image in upright.values()] == [
        (3, 160, 80),
        (3, 96, 96),
        (3, 160, 80),
    ]
    assert upright[str(photo)][:, 0, 0].tolist() == [9, 8, 7]
    stored = DEFAULT_RULES.model_copy(update={"exif_orientation": False})
    assert proof.proof_images([photo], settings, stored)[str(photo)].shape == (3, 80, 160)


def test_command_offers_every_kind() -> None:
    """The names stand in the command too, which is built without importing the exporters."""
    assert set(command._NAMES) == set(write.DETECTOR_FORMATS)


@pytest.mark.parametrize("count", [1, 40, 1000, 1001, 3000])
def test_suppression_of_the_onnx_graph(count: int) -> None:
    """It keeps what torchvision's keeps, in its order, on both sides of torchvision's branch."""
    torch.manual_seed(count)
    corner = torch.rand(count, 2) * 200
    boxes = torch.cat([corner, corner + torch.rand(count, 2) * 60], 1)
    scores, groups = torch.rand(count), torch.randint(1, 6, (count,))
    expected = batched_nms(boxes, scores, groups, 0.5)
    for limit in (len(expected) // 2 + 1, count):
        kept = onnx_file.suppress(boxes, scores, groups, 0.5, limit)
        assert torch.equal(kept, suppress(boxes, scores, groups, 0.5, limit))
        assert torch.equal(kept, expected[:limit])


def test_arithmetic_of_any_size() -> None:
    """Clipping is torchvision's, and the smaller of two numbers is one."""
    boxes = torch.randn(50, 3, 4) * 80
    assert torch.equal(clip_to_image(boxes, (30, 70)), clip_boxes_to_image(boxes, (30, 70)))
    assert (at_most(3, 5), at_most(5, 3)) == (3, 3)


def test_no_proposal_is_no_detection(detector: MaskRCNN) -> None:
    """Heads that get no box give none."""
    found = detector.roi_heads._detect(
        torch.zeros(0, 4), torch.zeros(0, 16), torch.zeros(0, 4), (20, 30)
    )
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "scores": (0,),
    }


@pytest.mark.parametrize("form", ["file", "run", "detectron2 run"])
def test_backbone_commands_name_the_detector_ones(
    detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """rsa-pretrain export of a detector is one error; inspect tells it of a file.

    Of a detectron2 file the backbone can be exported, and the command says that it is no more.
    """
    source = {
        "file": detector_file,
        "run": detector_file.parents[2],
        "detectron2 run": tmp_path / "run",
    }[form]
    file = tmp_path / "run" / "checkpoints" / "model_final.pth"
    exchange(detector_file, file)
    assert pretrain_main(["export", str(source), str(tmp_path / "x.onnx"), "--to", "onnx"]) == 2
    error = capsys.readouterr().err
    assert "is a trained detector, not a backbone: rsa-detect export writes it" in error
    assert error.count("\n") == 1
    assert pretrain_main(["export", str(file), str(tmp_path / "x.pth"), "--to", "torchvision"]) == 0
    assert "the backbone of a trained detector; rsa-detect export" in capsys.readouterr().out
    for path in (source, file):
        assert pretrain_main(["inspect", str(path)]) == (2 if path == tmp_path / "run" else 0)
        assert "a trained detector, not a backbone" in "".join(capsys.readouterr())
