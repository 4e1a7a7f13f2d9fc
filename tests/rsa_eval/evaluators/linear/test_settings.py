from pathlib import Path
from typing import Any

import pytest

from rsa_eval.campaigns.settings import SuiteConfig, load_evaluations
from rsa_eval.config import result_settings
from rsa_eval.evaluators.linear.deviations import linear_deviations
from rsa_eval.evaluators.linear.settings import LINEAR_PROTOCOLS, LinearConfig, ProbeConfig
from rsa_pretrain.plumbing.config.files import load_config, parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError

DATA = {"name": "digits", "image_size": 32}


@pytest.mark.parametrize("protocol", LINEAR_PROTOCOLS)
def test_the_published_settings_deviate_in_nothing(protocol: str) -> None:
    """The defaults of a protocol are the protocol; of DINOv2's, what its code does besides."""
    published = {"data": DATA | {"eval_interpolation": "bicubic"}, "precision": "fp16"}
    tree = {"data": DATA, "protocol": protocol} | (published if protocol == "dinov2" else {})
    found = linear_deviations(parse_tree(LinearConfig, tree, "test"), 12_500)
    beyond_settings = ["heads 13", "all heads start", "head chosen"] if protocol == "dinov2" else []
    assert len(found) == len(beyond_settings)
    for deviation, start in zip(found, beyond_settings, strict=True):
        assert deviation.startswith(start)


@pytest.mark.parametrize(
    ("changes", "deviation"),
    [
        ({}, "bilinear resizing (protocol: bicubic)"),
        ({}, "steps 490 (protocol: 12500)"),
        ({}, "precision fp32 (protocol: fp16)"),
        ({}, "all heads start from the same weights (protocol: each from its own)"),
        ({}, "head chosen on held-out training images (protocol: on the test images)"),
        ({"protocol": "moco_v2", "data": {"eval_interpolation": "bicubic"}}, "bicubic resizing"),
        (
            {"protocol": "moco_v2", "probe": {"views": "batched"}},
            "views batched (protocol: pillow)",
        ),
        (
            {"protocol": "mean_shift", "probe": {"init_std": 0.01}},
            "init_std 0.01 (protocol: not set)",
        ),
    ],
)
def test_departures_from_the_original_code_are_listed(
    changes: dict[str, Any], deviation: str
) -> None:
    """A run that does not do as the protocol's authors says so, whichever way it differs."""
    tree = {"protocol": "dinov2"} | changes | {"data": DATA | changes.get("data", {})}
    found = linear_deviations(parse_tree(LinearConfig, tree, "test"), 490)
    assert any(entry.startswith(deviation) for entry in found)


def test_one_head_is_not_chosen() -> None:
    """With a single rate nothing is held out, and nothing is said of heads beside each other."""
    tree = {"data": DATA, "protocol": "dinov2", "probe": {"base_lr": 0.1}}
    found = linear_deviations(parse_tree(LinearConfig, tree, "test"), 490)
    assert not any("chosen" in entry or "all heads" in entry for entry in found)


def test_every_dinov2_config_resizes_bicubically() -> None:
    """Alone and in a suite whose images others share; the shared features of the quick one do not.

    Nothing is resized where a set's images have the network's size, but crops are.
    """
    config = load_config(LinearConfig, [Path("linear/dinov2"), Path("data/digits")])
    assert config.data.eval_interpolation == "bicubic"
    for name in ("cifar10", "digits", "imagefolder", "imagenet"):
        suite = load_config(SuiteConfig, Path(name))
        for evaluation in load_evaluations(suite, Path(), Path("features")):
            expected = "bicubic" if evaluation.config.protocol == "dinov2" else "bilinear"
            assert evaluation.config.data.eval_interpolation == expected


def test_the_protocol_decides_the_probe() -> None:
    """A file or a word names the protocol; what is set beside it changes that alone."""
    tree = {"data": DATA, "protocol": "simsiam", "probe": {"epochs": 3}}
    probe = parse_tree(LinearConfig, tree, "test").probe
    published = LINEAR_PROTOCOLS["simsiam"]
    assert probe == published.model_copy(update={"epochs": 3})
    assert (published.epochs, published.batch_size, published.base_lr) == (90, 4096, (0.1,))
    word = "protocol=mean_shift"
    config = load_config(LinearConfig, None, [word], {"data": DATA})
    assert config.probe == LINEAR_PROTOCOLS["mean_shift"]
    assert config.probe.standardise
    with pytest.raises(UserError, match="'protocol'"):
        load_config(LinearConfig, None, ["protocol=mocov2"], {"data": DATA})
    with pytest.raises(UserError, match="'probe'"):
        load_config(LinearConfig, None, ["probe=3"], {"data": DATA})


def test_one_rate_may_stand_without_a_list() -> None:
    """A number is a list of one."""
    assert ProbeConfig(base_lr=10).base_lr == (10.0,)
    assert len(LINEAR_PROTOCOLS["dinov2"].base_lr) == 13


def test_folds_are_those_of_stl10() -> None:
    """No other data set has them, and one fold is not each."""
    with pytest.raises(UserError, match="stl10_folds belongs to 'stl10', not to 'digits'"):
        parse_tree(LinearConfig, {"data": DATA, "stl10_folds": True}, "test")
    with pytest.raises(UserError, match=r"stl10_fold belongs to 'stl10', not to 'digits'"):
        parse_tree(LinearConfig, {"data": DATA | {"stl10_fold": 0}}, "test")
    stl10 = {"name": "stl10", "root": "data", "image_size": 64}
    for fold, settings in ((0, {"stl10_folds": True}), (10, {})):
        with pytest.raises(UserError, match=r"leave data\.stl10_fold out|'data\.stl10_fold'"):
            parse_tree(LinearConfig, {"data": stl10 | {"stl10_fold": fold}, **settings}, "test")
    config = parse_tree(LinearConfig, {"data": stl10 | {"stl10_fold": 3}}, "test")
    assert linear_deviations(config, 12_500) == ["fold 3 of the training images (protocol: all)"]
    config = parse_tree(LinearConfig, {"data": stl10, "stl10_folds": True}, "test")
    assert linear_deviations(config, 12_500) == [
        "mean over ten folds of the training images (protocol: all at once)"
    ]


def test_batched_views_are_those_of_bilinear_online_training() -> None:
    """Neither another interpolation nor cached features can have them."""
    tree = {"data": DATA, "probe": {"views": "batched"}}
    assert parse_tree(LinearConfig, tree, "test").probe.views == "batched"
    bicubic = tree | {"data": DATA | {"eval_interpolation": "bicubic"}}
    with pytest.raises(UserError, match=r"bilinearly, found .* bicubic; set probe\.views=pillow"):
        parse_tree(LinearConfig, bicubic, "test")
    cached = tree | {"probe": {"views": "batched", "mode": "cached"}}
    with pytest.raises(UserError, match=r"augments no images, found views batched; set"):
        parse_tree(LinearConfig, cached, "test")


def test_older_probes_had_pillows_views() -> None:
    """A record made before there was a choice has the settings of one made by the default."""
    tree = to_tree(parse_tree(LinearConfig, {"data": DATA}, "test"))
    older = {key: value for key, value in tree["probe"].items() if key != "views"}
    assert result_settings(tree | {"probe": older}) == result_settings(tree)
    batched = result_settings(tree | {"probe": older | {"views": "batched"}})
    assert batched != result_settings(tree)
