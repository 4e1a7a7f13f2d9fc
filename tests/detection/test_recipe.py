from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from detection.coco.data_settings import VocDataConfig
from detection.recipe.architecture import DEFAULT_ANCHORS
from detection.recipe.recipe import Recipe, Schedule, SolverConfig, lr_schedule
from rsa_pretrain.plumbing.config.files import load_config, write_config
from rsa_pretrain.plumbing.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs" / "detection"

C4_WORDS = (
    "features=C4",
    "box_head_num_convs=0",
    "box_head_num_fcs=0",
    "mask_head_num_convs=0",
)


def _schedule_at(solver: SolverConfig, step: int) -> float:
    return lr_schedule(solver)(step / solver.iterations)


def test_schedule_by_hand() -> None:
    """Linear from a thousandth, full at the end of warm-up, a tenth at each step."""
    solver = SolverConfig(iterations=100, decay_at=(60, 80), warmup_iterations=10)
    expected = {
        0: 0.001,
        5: 0.001 + 0.999 * 0.5,
        9: 0.001 + 0.999 * 0.9,
        10: 1.0,
        59: 1.0,
        60: 0.1,
        79: 0.1,
        80: 0.01,
        99: 0.01,
    }
    found = {step: _schedule_at(solver, step) for step in expected}
    assert found == pytest.approx(expected)


def test_schedule_without_warmup_and_steps_is_constant() -> None:
    """Both parts can be absent."""
    solver = SolverConfig(iterations=10, decay_at=(), warmup_iterations=0)
    assert [_schedule_at(solver, step) for step in range(10)] == [1.0] * 10


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (16, Schedule(0.02, 90_000, (60_000, 80_000), 1000)),
        (8, Schedule(0.01, 180_000, (120_000, 160_000), 2000)),
        (2, Schedule(0.0025, 720_000, (480_000, 640_000), 8000)),
        (24, Schedule(0.03, 60_000, (40_000, 53_333), 667)),
        (32, Schedule(0.04, 45_000, (30_000, 40_000), 500)),
    ],
)
def test_schedule_scales_with_the_batch(batch_size: int, expected: Schedule) -> None:
    """Half the batch: half the rate, twice the length; lengths are rounded, not cut."""
    found = SolverConfig(base_lr=0.02, batch_size=batch_size).schedule
    assert found.lr == pytest.approx(expected.lr)
    assert replace(found, lr=expected.lr) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay_at": (80_000, 60_000)}, "must rise"),
        ({"decay_at": (90_000,)}, "stay below iterations 90000"),
        (
            {"warmup_iterations": 90_000},
            "must be below iterations 90000; lower it or",
        ),
        ({"batch_size": 10**6}, r"iterations 1, found \[1, 1\], scaled to batch_size"),
    ],
)
def test_impossible_schedules_are_refused(change: dict[str, object], message: str) -> None:
    """Steps out of order or beyond the end, and warm-up without end, are errors."""
    with pytest.raises(ValueError, match=message):
        SolverConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads(path: Path, tmp_path: Path) -> None:
    """Each YAML is a recipe, and writing it resolved loses nothing."""
    is_base = path.stem.startswith("base_")
    configs = [path, "data/coco"] if is_base else [path]
    recipe = load_config(Recipe, configs, ["name=base"] if is_base else [])
    write_config(recipe, tmp_path / "config.yaml")
    assert load_config(Recipe, tmp_path / "config.yaml") == recipe
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    ("name", "iterations", "decay_at", "base_lr"),
    [("1x", 90_000, (60_000, 80_000), 0.02), ("2x", 180_000, (120_000, 160_000), 0.03)],
)
def test_paper_recipes_value_by_value(
    name: str, iterations: int, decay_at: tuple[int, ...], base_lr: float
) -> None:
    """The COCO recipes and their baselines are InfoMin's with the RSA paper's rates."""
    recipe = load_config(Recipe, Path(f"mask_rcnn_R_50_FPN_{name}"))
    solver = recipe.solver
    assert (solver.iterations, solver.decay_at, solver.base_lr) == (iterations, decay_at, base_lr)
    assert (solver.batch_size, solver.schedule.lr) == (16, base_lr)
    assert (solver.warmup_iterations, solver.warmup_factor) == (1000, 0.001)
    assert (solver.weight_decay, solver.norm_weight_decay) == (1e-4, 0.0)
    assert solver.sgd_momentum == 0.9
    assert recipe.input.train_short_sides_pixels == (640, 672, 704, 736, 768, 800)
    assert (recipe.input.test_short_side_pixels, recipe.input.max_side_pixels) == (800, 1333)
    model = recipe.model
    assert (model.arch, model.trunk_norm, model.head_norm) == ("resnet50", "SyncBN", "SyncBN")
    assert (model.freeze_at, model.box_head_num_convs, model.box_head_num_fcs) == (0, 4, 1)
    assert model.mask_head_num_convs == 4
    assert model.anchors == DEFAULT_ANCHORS == ((32, 64, 128, 256, 512), (0.5, 1, 2))
    assert recipe.training.precise_bn_iterations == 200
    sampling = recipe.sampling
    assert (sampling.anchors_per_image, sampling.rois_per_image) == (256, 512)
    assert (sampling.proposals_per_image, sampling.detections_per_image) == (1000, 100)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("anchor_sizes_pixels", [32, 64, 128], "_pixels has 3 sizes; features FPN needs one"),
        ("anchor_sizes_pixels", [8, 16, 32, 64, 128, 256], "_pixels has 6 sizes; features FPN"),
        (
            "anchor_sizes_pixels",
            [32, 64, 64, 128, 256],
            "_pixels': anchor sizes must increase",
        ),
        ("anchor_sizes_pixels", [0, 64, 128, 256, 512], r"_pixels\.0': .*greater than 0"),
        ("anchor_sizes_pixels", [8, 16, 32, 64, ".inf"], r"_pixels\.4': .*finite"),
        ("anchor_aspect_ratios", [], "_ratios': Tuple should have at least 1 item"),
        ("anchor_aspect_ratios", [1, -2], r"_ratios\.1': .*greater than 0"),
        ("anchor_aspect_ratios", [1, 2, 1.0], "_ratios': aspect ratios must be distinct"),
    ],
)
def test_impossible_anchors_are_refused(key: str, value: list[object], message: str) -> None:
    """One rising size for each of five levels and different ratios, all above 0."""
    words = f"model.{key}=[{', '.join(map(str, value))}]"
    with pytest.raises(UserError, match=message):
        load_config(Recipe, CONFIGS / "toy_shapes.yaml", [words])


def test_misspelt_key_names_the_nearest(tmp_path: Path) -> None:
    """An unknown key is an error that says which one was meant."""
    tree = yaml.safe_load((CONFIGS / "toy_shapes.yaml").read_text(encoding="utf-8"))
    tree["solver"]["base_rl"] = 0.1
    path = tmp_path / "misspelt.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown key 'solver\.base_rl'.*'solver\.base_lr'"):
        load_config(Recipe, path)


def test_unknown_engine_is_refused() -> None:
    """An engine this toolkit does not have is named together with those it has."""
    with pytest.raises(UserError, match=r"'engine': .*'torchvision' or 'detectron2'.*'mmdet'"):
        load_config(Recipe, CONFIGS / "toy_shapes.yaml", ["engine=mmdet"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["features=C4"],
            "whose head is res5, set to 0: box_head_num_convs 4, box_head_num_fcs 1, mask_head_num",
        ),
        (["box_head_num_fcs=0"], "features FPN needs at least 1 of box_head_num_fcs, found 0"),
        (
            ["box_head_num_fcs=0", "mask_head_num_convs=0"],
            "at least 1 of box_head_num_fcs and of mask_head_num_convs, found 0",
        ),
        ([*C4_WORDS, "arch=resnet18"], "no C4 detector on resnet18, whose blocks are not bottle"),
        ([*C4_WORDS, "freeze_at=5"], "freeze_at is 5; .* 4 freezes all stages before it"),
        ([*C4_WORDS, "pyramid_norm=BN"], "features C4 have no pyramid"),
        ([*C4_WORDS, "trunk_norm=FrozenBN"], "head_norm is SyncBN and trunk_norm FrozenBN"),
        ([*C4_WORDS, "head_norm=BN"], "head_norm is BN and trunk_norm SyncBN; .* trunk's or none"),
    ],
)
def test_settings_that_no_detector_has(words: list[str], message: str) -> None:
    """Layers without a place, and heads without layers, are refused by name."""
    with pytest.raises(UserError, match=message):
        load_config(Recipe, Path("mask_rcnn_R_50_FPN_1x"), [f"model.{word}" for word in words])


def test_moco_recipes_value_by_value() -> None:
    """MoCo's release and paper: rate, schedules, sizes, norms and layers."""
    for schedule, iterations, decay_at in (
        ("1x", 90_000, (60_000, 80_000)),
        ("2x", 180_000, (120_000, 160_000)),
    ):
        for features in ("FPN", "C4"):
            recipe = load_config(Recipe, Path(f"moco_mask_rcnn_R_50_{features}_{schedule}"))
            solver, model = recipe.solver, recipe.model
            assert (solver.iterations, solver.decay_at) == (iterations, decay_at)
            assert (solver.base_lr, solver.warmup_iterations) == (0.02, 1000)
            assert recipe.input.train_short_sides_pixels == (640, 672, 704, 736, 768, 800)
            assert (model.features, model.mask_head, model.freeze_at) == (features, True, 0)
            assert (model.trunk_norm, model.norm_of_pyramid) == ("SyncBN", "SyncBN")
            assert model.head_norm == ("SyncBN" if features == "C4" else "none")
            layers = (0, 0, 0) if features == "C4" else (0, 2, 4)
            counts = (model.box_head_num_convs, model.box_head_num_fcs, model.mask_head_num_convs)
            assert counts == layers
            proposals = recipe.sampling.num_proposals
            assert proposals == (2000 if features == "C4" else 1000, 1000)


@pytest.mark.parametrize("trunk", ["", "_frozen"])
def test_moco_s_voc_recipe_value_by_value(trunk: str) -> None:
    """MoCo's release, and the same with the stages before the regions fixed."""
    recipe = load_config(Recipe, Path(f"pascal_voc_R_50_C4_24k{trunk}"))
    solver, model = recipe.solver, recipe.model
    assert (solver.iterations, solver.decay_at) == (24_000, (18_000, 22_000))
    assert (solver.base_lr, solver.batch_size, solver.warmup_iterations) == (0.02, 16, 100)
    assert recipe.input.train_short_sides_pixels == tuple(range(480, 801, 32))
    assert (recipe.input.test_short_side_pixels, recipe.input.max_side_pixels) == (800, 1333)
    assert (model.features, model.mask_head, model.freeze_at) == ("C4", False, 4 if trunk else 0)
    assert (model.trunk_norm, model.head_norm) == ("SyncBN", "SyncBN")
    assert recipe.sampling.num_proposals == (2000, 1000)
    assert recipe.training.precise_bn_iterations == 200
    data = recipe.data
    assert isinstance(data, VocDataConfig)
    assert (data.train, data.test) == (("2007/trainval", "2012/trainval"), ("2007/test",))
