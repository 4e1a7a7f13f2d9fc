import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipe_trees import recipe_tree

from rsa_eval.config import DETECTION_BEFORE_THERE_WAS_A_CHOICE
from rsa_eval.records.detection_recipe import recipe_fingerprint, recipe_of, recipe_settings
from rsa_eval.records.groups import group_records
from rsa_eval.records.identity import group_key
from rsa_eval.records.record import Record
from rsa_pretrain.plumbing.config.files import flatten

MakeResult = Callable[..., Record]
CONFIGS = Path(__file__).parents[3] / "configs" / "detection"
ONE = "mask_rcnn_R_50_FPN_1x"

# Where, when and how fast, and by which library; a new setting belongs here only if no result
# depends on it. Any other is in the fingerprint, and if it is added to recipes that have been run,
# its former behaviour is in DETECTION_BEFORE_THERE_WAS_A_CHOICE.
OUTSIDE = {
    *("name", "engine", "output_dir", "seed"),
    *("data.train_annotations", "data.train_images", "data.test_annotations", "data.test_images"),
    *("data.root", "data.num_workers", "data.max_megapixels"),
    *("training.device", "training.precision", "training.evaluate_every_iterations"),
    *("training.checkpoint_every_iterations", "training.keep_checkpoints"),
    "training.log_every_iterations",
}


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """Return settings as a version without one of them recorded them."""
    copied: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    section, _, name = key.partition(".")
    copied[section].pop(name, None)
    return copied


def detector(make_result: MakeResult, tree: dict[str, Any], **changes: Any) -> Record:
    """Return the record of a detector with these settings."""
    fields: dict[str, Any] = {"kind": "detection", "protocol": tree.get("name", ONE)}
    return make_result(**fields | {"config": tree, "values": {"bbox_AP": 40.0}} | changes)


@pytest.mark.parametrize(
    "name", [path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("base_")]
)
def test_every_setting_is_in_the_fingerprint_or_known_to_be_outside(name: str) -> None:
    """A new setting must be decided on."""
    tree = recipe_tree(name)
    assert flatten(tree).keys() - recipe_settings(tree).keys() <= OUTSIDE
    assert recipe_fingerprint(tree) is not None


@pytest.mark.parametrize(
    "word",
    [
        "seed=3",
        "output_dir=elsewhere",
        "engine=torchvision",
        "data.train_images=/images",
        "data.test_annotations=other.json",
        "data.num_workers=0",
        "training.device=cpu",
        "training.precision=fp16",
        "training.evaluate_every_iterations=5",
        "training.log_every_iterations=1",
        "name=mine",
    ],
)
def test_seeds_places_engines_and_speed_are_outside(word: str) -> None:
    """They change the place and the time of a run, not its recipe."""
    assert recipe_fingerprint(recipe_tree(ONE, word)) == recipe_fingerprint(recipe_tree(ONE))


@pytest.mark.parametrize(
    "word",
    [
        "data.name=voc0712",
        "data.keep_empty_images=true",
        "data.exif_orientation=false",
        "input.train_short_sides_pixels=[800]",
        "input.flip_probability=0",
        "model.arch=resnet18",
        "model.trunk_norm=FrozenBN",
        "model.head_norm=none",
        "model.box_head_num_fcs=2",
        "model.mask_head=false",
        "model.anchor_aspect_ratios=[1, 2]",
        "sampling.proposals_per_image=2000",
        "solver.base_lr=0.03",
        "solver.batch_size=8",
        "solver.warmup_factor=0.01",
        "solver.norm_weight_decay=0.0001",
        "training.precise_bn_iterations=null",
    ],
)
def test_what_defines_the_protocol_changes_the_fingerprint(word: str) -> None:
    """Each alone, in every section."""
    found = recipe_fingerprint(recipe_tree(ONE, word))
    assert found != recipe_fingerprint(recipe_tree(ONE))
    assert found is not None
    assert len(found) == 8
    assert set(found) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "word",
    ["sampling.train_proposals_per_image=1000", "model.pyramid_norm=SyncBN"],
)
def test_a_default_written_out_is_the_same_recipe(make_result: MakeResult, word: str) -> None:
    """Left at null it means the other setting's value: one fingerprint, and one group of trials."""
    plain, written = recipe_tree(ONE), recipe_tree(ONE, word)
    assert recipe_fingerprint(written) == recipe_fingerprint(plain)
    key, _, value = word.partition("=")
    other = {"1000": "1500", "SyncBN": "BN"}[value]
    assert recipe_fingerprint(recipe_tree(ONE, f"{key}={other}")) != recipe_fingerprint(plain)
    records = [detector(make_result, tree) for tree in (plain, written)]
    assert group_key(records[0]) == group_key(records[1])


def test_the_network_of_a_checkpoint_is_part_of_the_recipe(make_result: MakeResult) -> None:
    """A run that takes it from its weights and one that names it are alike; another is not.

    The fingerprint that such a run once recorded left it out.
    """
    opened, named, other = (
        recipe_tree(ONE, f"model.arch={arch}") for arch in ("null", "resnet18", "resnet50")
    )
    expected, wrong = recipe_fingerprint(named), recipe_fingerprint(opened)
    taken = detector(make_result, opened, details={"recipe_fingerprint": wrong})
    assert taken.model.backbone is not None
    assert taken.model.backbone.arch == "resnet18"
    identity = recipe_of(taken)
    assert identity is not None
    assert identity.fingerprint == identity.key == expected
    assert expected not in (wrong, recipe_fingerprint(other))
    assert group_key(taken) == group_key(detector(make_result, named))
    lacking = [detector(make_result, without(tree, "solver.base_lr")) for tree in (opened, named)]
    keys = [recipe and recipe.key for recipe in map(recipe_of, lacking)]
    assert keys[0] == keys[1]


def test_sets_of_voc_are_part_of_the_protocol() -> None:
    """Its lists of images and its classes count; the folder does not."""
    tree = recipe_tree(ONE)
    tree["data"] = {"name": "voc0712", "format": "voc", "root": "VOCdevkit"}
    tree["data"] |= {"train": ["2007/trainval", "2012/trainval"], "test": ["2007/test"]}
    known = recipe_fingerprint(tree)
    assert known not in (None, recipe_fingerprint(recipe_tree(ONE, "data.name=voc0712")))
    tree["data"]["root"] = "elsewhere"
    assert recipe_fingerprint(tree) == known
    tree["data"]["train"] = ["2007/trainval"]
    assert recipe_fingerprint(tree) != known


@pytest.mark.parametrize("key", [*DETECTION_BEFORE_THERE_WAS_A_CHOICE, "data.exif_orientation"])
def test_a_setting_added_later_leaves_older_fingerprints_as_they_are(key: str) -> None:
    """At the value that says what was done before; at another one it counts."""
    tree = recipe_tree(ONE)
    older = without(tree, key)
    assert recipe_fingerprint(older) == recipe_fingerprint(tree)
    section, _, name = key.partition(".")
    older[section][name] = "another"
    assert recipe_fingerprint(older) != recipe_fingerprint(tree)


def test_a_setting_of_a_later_version_counts() -> None:
    """One that this version does not know makes another recipe rather than an equal one."""
    tree = recipe_tree(ONE)
    tree["model"]["depth_of_something"] = 3
    assert recipe_fingerprint(tree) != recipe_fingerprint(recipe_tree(ONE))


def test_equal_numbers_have_one_fingerprint() -> None:
    """A whole number may be written with a point, and a list may be a tuple."""
    tree = recipe_tree(ONE)
    tree["solver"]["iterations"] = 90000.0
    tree["model"]["anchor_sizes_pixels"] = (32, 64, 128, 256, 512)
    assert recipe_fingerprint(tree) == recipe_fingerprint(recipe_tree(ONE))


def test_records_state_their_recipe_or_are_computed(make_result: MakeResult) -> None:
    """The recorded digits win; an older record's settings give the same; other words do not."""
    tree = recipe_tree(ONE)
    expected = recipe_fingerprint(tree)
    for details, fingerprint in (
        ({}, expected),
        ({"recipe_fingerprint": "0123abcd"}, "0123abcd"),
        ({"recipe_fingerprint": 12345678}, expected),
        ({"recipe_fingerprint": "no digits"}, expected),
    ):
        recipe = recipe_of(detector(make_result, tree, details=details))
        assert recipe is not None
        assert (recipe.name, recipe.fingerprint, recipe.key) == (ONE, fingerprint, fingerprint)
        assert recipe.text == f"{ONE} [{fingerprint}]"
    assert recipe_of(make_result()) is None


@pytest.mark.parametrize("protocol", [f"{ONE}_random", f"{ONE}_supervised"])
def test_names_of_initial_weights_are_not_the_recipes(
    make_result: MakeResult, protocol: str
) -> None:
    """Older runs of the baselines were named after their weights."""
    recipe = recipe_of(detector(make_result, recipe_tree(ONE), protocol=protocol))
    assert recipe is not None
    assert recipe.name == ONE


def test_a_record_without_all_settings_has_an_unknown_recipe(make_result: MakeResult) -> None:
    """Nothing is guessed; two such records are alike only if they state the same."""
    tree = recipe_tree(ONE)
    lacking = [
        without(tree, key) for key in ("solver.base_lr", "solver.base_lr", "model.freeze_at")
    ]
    recipes = [recipe_of(detector(make_result, each)) for each in lacking]
    assert {recipe and recipe.fingerprint for recipe in recipes} == {None}
    assert {recipe and recipe.text for recipe in recipes} == {f"{ONE} [unknown recipe]"}
    keys = [recipe and recipe.key for recipe in recipes]
    assert keys[0] == keys[1] != keys[2]


def test_trials_on_two_sets_of_annotations_are_no_group(make_result: MakeResult) -> None:
    """Two folders of VOC have one name and one recipe; the same files elsewhere are one set."""
    known = {"train": "aa", "test": "bb"}
    hashes = [known, dict(known), known | {"train": "cc"}, known | {"test": "dd"}]
    records = [
        detector(
            make_result,
            recipe_tree(ONE, f"seed={seed}"),
            seeds=[seed],
            random_init=True,
            details={"annotations_sha256": each},
        )
        for seed, each in enumerate(hashes)
    ]
    found = group_records([(record.command, record) for record in records])  # type: ignore[misc]
    assert [len(group.records) for group in found] == [2, 1, 1]


def test_trials_of_two_recipes_are_no_group(make_result: MakeResult) -> None:
    """Seeds by one recipe are averaged, with an older record too; another recipe's are not."""
    trees = [recipe_tree(ONE, f"seed={seed}") for seed in range(2)]
    old = without(trees[1], "model.mask_head")
    changed = recipe_tree(ONE, "seed=2", "solver.base_lr=0.03")
    records = [
        detector(make_result, tree, seeds=[seed], random_init=True)
        for seed, tree in enumerate((trees[0], old, changed))
    ]
    assert group_key(records[0]) == group_key(records[1]) != group_key(records[2])
    found = group_records([(record.command, record) for record in records])  # type: ignore[misc]
    assert [len(group.records) for group in found] == [2, 1]
