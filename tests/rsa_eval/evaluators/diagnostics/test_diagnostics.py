import json
import math
import os
from pathlib import Path
from typing import Any

import feature_geometry
import numpy as np
import pytest
import torch
from narrow import narrow_resnets
from PIL import Image

from rsa_eval.campaigns.run_records import make_record_of
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.diagnostics.evaluator import diagnostics_deviations, evaluate_diagnostics
from rsa_eval.evaluators.diagnostics.geometry import alignment, rank_me, uniformity
from rsa_eval.evaluators.diagnostics.measures import measure
from rsa_eval.evaluators.diagnostics.pictures import draw_rows
from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig
from rsa_eval.evaluators.diagnostics.similarity import linear_cka, unbiased_linear_cka
from rsa_eval.evaluators.diagnostics.view_features import ViewFeatures, view_features
from rsa_eval.features.extract import stored_features
from rsa_eval.features.forward import forward_frozen
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.records.record import Result
from rsa_pretrain.components.backbone import build_backbone, feature_dim
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

DATA = {"name": "digits", "image_size": 32, "num_workers": 0}
PROGRAM = Path(__file__).parents[2] / "two_processes.py"


@pytest.fixture
def config() -> DiagnosticsConfig:
    """A few digits; batches and chunks do not divide their number."""
    tree = {
        "data": DATA | {"num_train_images": 60, "num_test_images": 30},
        "batch_size": 16,
        "num_view_images": 9,
        "num_queries": 3,
        "num_neighbours": 4,
        "embedding": {"num_images": 20},
        "device": "cpu",
    }
    return parse_tree(DiagnosticsConfig, tree, "test")


@pytest.fixture
def result(subject: Subject, config: DiagnosticsConfig, workspace: Workspace) -> Result:
    """The diagnostics of the run's backbone, with plots."""
    return evaluate_diagnostics(subject, config, workspace)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_rank_counts_equal_orthogonal_directions(k: int) -> None:
    """K equally long orthogonal directions have rank k, whatever the width and the number."""
    rows = torch.eye(12)[:k].repeat(5, 1)
    # ε alone adds to the other directions' shares: 12 · 1e-7 · log(1e7) < 2e-5.
    assert rank_me(rows) == pytest.approx(k, rel=3e-5)


def test_rank_of_a_known_spectrum() -> None:
    """Singular values 3 and 1 are worth exp of the entropy of 3/4 and 1/4."""
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert rank_me(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected, rel=1e-5)


def test_rank_ignores_scale_order_and_rotation() -> None:
    """Only the spectrum's shape counts, and how the rows are cut into chunks does not."""
    features = torch.randn(50, 8, dtype=torch.float64) * torch.arange(1, 9)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    expected = rank_me(features)
    assert rank_me(7 * features.flip(0) @ rotation) == pytest.approx(expected)
    assert rank_me(features, chunk_size=3) == pytest.approx(expected)
    assert rank_me(features.T) == pytest.approx(expected)


def test_rank_of_nothing_is_zero() -> None:
    """Features that are all zero take no direction, and do not become NaN."""
    assert rank_me(torch.zeros(5, 3)) == 0


def test_alignment_by_hand() -> None:
    """Identical views 0, orthogonal 2, opposite 4; norms do not matter."""
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert alignment(east, 3 * east) == 0
    assert alignment(east, north) == pytest.approx(2)
    assert alignment(east, -2 * east) == pytest.approx(4)
    assert alignment(east, north, alpha=1) == pytest.approx(math.sqrt(2))
    both = alignment(torch.cat([east, east]), torch.cat([east, north]))
    assert both == pytest.approx(1)


def test_alignment_is_symmetric() -> None:
    """Swapping the views changes nothing; shuffling one of them does."""
    first, second = torch.randn(2, 20, 6).unbind()
    assert alignment(first, second) == alignment(second, first)
    assert alignment(first, second.flip(0)) != pytest.approx(alignment(first, second))


def test_alignment_refuses_unpaired_features() -> None:
    """Every image has both views, and there is one."""
    with pytest.raises(ValueError, match="expected pairs"):
        alignment(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="expected pairs"):
        alignment(torch.zeros(0, 2), torch.zeros(0, 2))


def test_uniformity_by_hand() -> None:
    """Identical points 0; two opposite points -4t; an orthogonal pair -2t."""
    assert uniformity(torch.ones(9, 4), chunk_size=4) == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(torch.eye(2), t=3) == pytest.approx(-6)


def test_uniformity_ignores_chunks_order_and_rotation() -> None:
    """Each pair counts once, whichever chunk it falls in."""
    features = torch.randn(31, 5, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    expected = uniformity(features)
    for chunk_size in (1, 7, 30, 31):
        assert uniformity(features, chunk_size=chunk_size) == pytest.approx(expected)
    assert uniformity(features.flip(0) @ rotation) == pytest.approx(expected)


def test_uniformity_needs_a_pair() -> None:
    """One image has no pair."""
    with pytest.raises(ValueError, match="at least 2 features, found 1"):
        uniformity(torch.ones(1, 2))


def test_measures_equal_the_slow_ones() -> None:
    """Chunked sums equal loops over images, in float32 and float16."""
    first, second = torch.randn(2, 17, 6).unbind()
    for dtype in (torch.float32, torch.float16):
        one, other = first.to(dtype), second.to(dtype)
        assert rank_me(one, 5) == pytest.approx(feature_geometry.rank_me(one))
        assert uniformity(one, 2.0, 5) == pytest.approx(feature_geometry.uniformity(one, 2.0))
        assert alignment(one, other) == pytest.approx(feature_geometry.alignment(one, other, 2.0))


def test_result_tells_numbers_and_images(
    wide_subject: Subject, config: DiagnosticsConfig, workspace: Workspace
) -> None:
    """Every measure, and of how many images."""
    result = evaluate_diagnostics(wide_subject, config, workspace)
    assert set(result.metrics) == {
        "rankme",
        "alpha_req",
        "lidar",
        "feature_std",
        "uniformity",
        "alignment",
        "alignment_weak",
    }
    assert 1 <= result.metrics["rankme"].value <= 30
    assert result.metrics["alignment"].value > result.metrics["alignment_weak"].value > 0
    assert result.details["num_images"] == 30
    assert result.details["num_view_images"] == 9
    assert result.details["num_embedded_images"] == 20
    assert 1 <= result.metrics["lidar"].value <= 8
    assert result.metrics["alpha_req"].unit == "exponent"
    assert result.deviations[-3:] == [
        "rank of 30 images (RankMe: 25600)",
        "alpha_req fitted to eigenvalues 4 to 29 (α-ReQ: 4 to 100)",
        "LiDAR of 9 images with 512 features (LiDAR: more images than features)",
    ]
    json.dumps(result.details)


def test_more_views_change_lidar_alone(
    subject: Subject, config: DiagnosticsConfig, tmp_path: Path, result: Result
) -> None:
    """The alignment compares the first pair, however many follow."""
    fewer = config.model_copy(update={"num_views": 2})
    changed = evaluate_diagnostics(subject, fewer, Workspace(tmp_path / "fewer.json")).metrics
    assert changed.pop("lidar") != result.metrics["lidar"]
    assert changed == {name: value for name, value in result.metrics.items() if name != "lidar"}


def test_every_pair_of_views_is_another(subject: Subject, config: DiagnosticsConfig) -> None:
    """Each draw gives new aggressive views; the weak ones show the crops of the first two."""
    images = open_images(config.data, "test")
    with frozen(subject.backbone):
        views = view_features(subject, images, config)
    assert len(views.aggressive) == 10
    assert len({tuple(view.flatten().tolist()) for view in views.aggressive}) == 10
    assert {view.shape for view in (*views.aggressive, *views.weak)} == {views.weak[0].shape}


def test_two_processes_share_the_views(
    subject: Subject,
    finished_run: Path,
    config: DiagnosticsConfig,
    tmp_path: Path,
    run_two_processes: Any,
) -> None:
    """Each receives the features that one process computes, bit by bit, for half of the work.

    Of three images, one batch, the second process computes none.
    """
    configs = [config.model_copy(update={"num_view_images": count}) for count in (9, 3)]
    task = {"run": str(finished_run), "configs": [to_tree(each) for each in configs]}
    (tmp_path / "task.json").write_text(json.dumps(task))
    run_two_processes(PROGRAM, "views", tmp_path / "task.json").check_returncode()
    outcomes = [json.loads((tmp_path / f"views-{rank}.json").read_text()) for rank in (0, 1)]
    for place, each in enumerate(configs):
        with frozen(subject.backbone):
            found = view_features(subject, open_images(each.data, "test"), each)
        expected = torch.stack([*found.weak, *found.aggressive])
        for outcome in outcomes:
            assert torch.equal(torch.tensor(outcome[place]["features"]), expected)
    # Of four views three batches of up to four images, of each further pair two of up to eight.
    forwards = [[own["forwards"] for own in outcome] for outcome in outcomes]
    assert forwards == [[2 * 4 + 4 * 2, 4 + 4 * 2], [4 + 4 * 2, 0]]


def test_an_odd_number_of_views_is_refused() -> None:
    """They are drawn in pairs."""
    with pytest.raises(UserError, match="num_views"):
        parse_tree(DiagnosticsConfig, {"data": DATA, "num_views": 5}, "test")


def test_by_default_lidar_has_more_images_than_a_resnet50_has_features() -> None:
    """So that a large test set lists no departure for the network the paper is about."""
    with torch.device("meta"), narrow_resnets(False):
        width = feature_dim(build_backbone(BackboneConfig(arch="resnet50", stem="standard")))
    assert parse_tree(DiagnosticsConfig, {"data": DATA}, "test").num_view_images > width


def test_comparing_with_the_same_checkpoint_gives_one(
    subject: Subject, finished_run: Path, config: DiagnosticsConfig, workspace: Workspace
) -> None:
    """Both estimates are 1, and the record says with which weights it compared."""
    config = config.model_copy(update={"compare_to": str(finished_run)})
    result = evaluate_diagnostics(subject, config, workspace)
    assert result.metrics["cka"].value == pytest.approx(1)
    assert result.metrics["cka_unbiased"].value == pytest.approx(1)
    assert result.details["compared_to"]["sha256"] == subject.model.sha256
    json.dumps(result.details)


def test_comparing_random_weights_with_another_network(
    subject: Subject, finished_run: Path, config: DiagnosticsConfig, workspace: Workspace
) -> None:
    """CKA is that of the two networks' features, of another width, of the same drawn images."""
    tree = to_tree(config) | {
        "compare_to": str(finished_run),
        "num_images": 20,
        "backbone": {"arch": "resnet50", "stem": "standard"},  # not that of the run
    }
    config = parse_tree(DiagnosticsConfig, tree, "test")
    random = load_subject(None, config)
    result = evaluate_diagnostics(random, config, workspace)
    images = open_images(config.data, "test")
    rows = draw_rows(20, 30, config.seed)
    first, second = (
        stored_features(each, images, config, "features").features[rows]
        for each in (random, subject)
    )
    assert first.shape[1] == 4 * second.shape[1]
    assert result.metrics["cka"].value == pytest.approx(linear_cka(first, second))
    assert result.metrics["cka_unbiased"].value == pytest.approx(unbiased_linear_cka(first, second))


NETWORKS = """
from rsa_eval import Preprocessing
from torch import nn

def maps():
    return nn.Conv2d(3, 5, 3, stride=2), Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)

def features():
    convolution, preprocessing = maps()
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten()), preprocessing
"""


def test_comparing_with_a_network_of_another_library(
    subject: Subject,
    finished_run: Path,
    config: DiagnosticsConfig,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Either way round; layers or tokens of the one network are not asked of the other."""
    (tmp_path / "networks_to_compare.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    features, maps = (f"python:networks_to_compare:{name}" for name in ("features", "maps"))
    of_run = config.model_copy(update={"layers": ("layer3",), "compare_to": features})
    first = evaluate_diagnostics(subject, of_run, workspace)
    assert first.details["compared_to"]["other_network"] == features
    of_maps = config.model_copy(update={"tokens": "mean", "compare_to": str(finished_run)})
    other = load_subject(maps, of_maps)
    second = evaluate_diagnostics(other, of_maps, workspace)
    images = open_images(config.data, "test")
    theirs, layer3, layer4 = (
        stored_features(each, images, settings, "features").features
        for each, settings in ((other, of_maps), (subject, of_run), (subject, config))
    )
    assert first.metrics["cka"].value == pytest.approx(linear_cka(layer3, theirs))
    assert second.metrics["cka"].value == pytest.approx(linear_cka(theirs, layer4))


def test_a_missing_checkpoint_to_compare_with_is_said_first(
    subject: Subject, config: DiagnosticsConfig, workspace: Workspace, tmp_path: Path
) -> None:
    """Before any feature is extracted."""
    update = {"compare_to": str(tmp_path / "missing"), "cache_dir": tmp_path / "cache"}
    with pytest.raises(UserError, match="missing"):
        evaluate_diagnostics(subject, config.model_copy(update=update), workspace)
    assert not (tmp_path / "cache").exists()


def test_measures_of_collapsed_features_are_left_out() -> None:
    """Their rank is 1; a power law, LiDAR and CKA they do not have, and the reason is said."""
    same = torch.ones(12, 8)
    measured = measure(same, ViewFeatures((same, same), [same, same]), torch.randn(12, 5))
    assert measured.metrics["rankme"].value == pytest.approx(1, rel=2e-5)
    assert measured.metrics["feature_std"].value == 0
    names = [reason.partition(":")[0] for reason in measured.left_out]
    assert names == ["alpha_req", "lidar", "cka", "cka_unbiased"]
    assert all("all images have the same" in reason for reason in measured.left_out)
    assert measured.metrics.keys().isdisjoint(names)
    assert measured.deviations == []


def test_as_many_images_as_published_deviate_in_nothing() -> None:
    """More images than features, and eigenvalues up to the hundredth."""
    features = torch.randn(300, 110)
    views = torch.randn(4, 120, 110).unbind()
    assert measure(features, ViewFeatures(views[:2], views), None).deviations == []


def test_pictures_lie_where_the_result_says(result: Result, workspace: Workspace) -> None:
    """Whole PNG files, one page and one table beside the record, and nothing else."""
    paths = [workspace.record.parent / path for path in result.artifacts.values()]
    assert sorted(paths) == sorted(workspace.artifacts.iterdir())
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 300
                assert np.asarray(picture.convert("L")).std() > 5
    assert len(list(workspace.record.parent.iterdir())) == 1


def test_a_folder_of_the_records_name_is_left_alone(
    subject: Subject, config: DiagnosticsConfig, tmp_path: Path
) -> None:
    """runs/NAME survives a record that is called runs/NAME.json."""
    run = tmp_path / "name"
    run.mkdir()
    (run / "backbone.safetensors").write_text("weights")
    result = evaluate_diagnostics(subject, config, Workspace(tmp_path / "name.json"))
    assert (run / "backbone.safetensors").read_text() == "weights"
    assert result.artifacts["Confusion matrix"] == "name.artifacts/confusion.png"


def test_files_of_others_are_not_replaced(
    subject: Subject, config: DiagnosticsConfig, workspace: Workspace
) -> None:
    """A folder with anything but the pictures, or a file in its place, is refused and kept."""
    workspace.artifacts.mkdir(parents=True)
    (workspace.artifacts / "embedding.png").touch()
    (workspace.artifacts / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"which also contains 'thesis\.tex'"):
        evaluate_diagnostics(subject, config, workspace)
    assert len(list(workspace.artifacts.iterdir())) == 2
    file = Workspace(workspace.record.with_name("other.json"))
    file.artifacts.touch()
    with pytest.raises(UserError, match=r"other\.artifacts' is a file"):
        evaluate_diagnostics(subject, config, file)


def test_views_without_finite_features_are_an_error(
    subject: Subject,
    config: DiagnosticsConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They give no number to record."""
    monkeypatch.setattr(
        "rsa_eval.evaluators.diagnostics.view_features.forward_frozen",
        lambda *given: torch.full_like(forward_frozen(*given), torch.nan),
    )
    with pytest.raises(UserError, match="augmented views are not finite at precision fp32"):
        evaluate_diagnostics(subject, config, workspace)


def test_confusions_count_every_test_image(result: Result, workspace: Workspace) -> None:
    """The table's cells add up to the test images, its diagonal to the vote's accuracy."""
    lines = (workspace.artifacts / "confusion.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    assert sum(int(count) for _, _, count in cells) == 30
    right = sum(int(count) for true, predicted, count in cells if true == predicted)
    assert result.details["vote_top1"] == pytest.approx(100 * right / 30)


def test_classes_of_any_name(finished_run: Path, tmp_path: Path) -> None:
    """Folders may be named by bytes that are no text, by markup, line breaks and formulas."""
    names = [b"caf\xe9", b"<b>&amp;", b"$x_1$\nnew,line"]
    pixels = np.random.default_rng(0)
    for split in (b"train", b"val"):
        for name in names:
            folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), split, name)))
            folder.mkdir(parents=True)
            for number in range(2):
                noise = pixels.integers(0, 256, (40, 30, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{number}.png")
    data = {"name": "imagefolder", "root": str(tmp_path), "image_size": 32, "num_workers": 0}
    tree = {"data": data, "device": "cpu", "embedding": {"method": "pca"}}
    config = parse_tree(DiagnosticsConfig, tree, "test")
    make_record_of(finished_run, EVALUATORS["diagnostics"], config, tmp_path / "out.json")
    table = (tmp_path / "out.artifacts/confusion.csv").read_text(encoding="utf-8")
    assert "caf?" in table
    assert '"$x_1$\nnew,line"' in table
    page = (tmp_path / "out.artifacts/neighbours.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;amp;" in page
    assert "<b>&amp;" not in page


def test_same_seed_same_numbers(
    subject: Subject, config: DiagnosticsConfig, tmp_path: Path, result: Result
) -> None:
    """A repeated evaluation draws the same images and views."""
    again = evaluate_diagnostics(subject, config, Workspace(tmp_path / "again.json"))
    assert again.metrics == result.metrics
    tree = to_tree(config) | {"seed": 1}
    other = parse_tree(DiagnosticsConfig, tree, "test")
    changed = evaluate_diagnostics(subject, other, Workspace(tmp_path / "other.json"))
    assert changed.metrics["rankme"] == result.metrics["rankme"]
    assert changed.metrics["alignment"] != result.metrics["alignment"]


def test_too_few_test_images(subject: Subject, tmp_path: Path) -> None:
    """It is said before features are extracted."""
    tree = {"data": DATA | {"num_train_images": 20, "num_test_images": 3}, "device": "cpu"}
    config = parse_tree(DiagnosticsConfig, tree, "test")
    with pytest.raises(UserError, match="need 4 images or more, found 3 test images"):
        evaluate_diagnostics(subject, config, Workspace(tmp_path / "x.json"))


def test_rank_of_as_many_images_as_published_deviates_in_nothing() -> None:
    """The default is RankMe's number of images."""
    config = parse_tree(DiagnosticsConfig, {"data": DATA}, "test")
    assert diagnostics_deviations(config, 50_000) == []
