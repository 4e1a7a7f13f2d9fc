import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detection.__main__ import main
from detection.exchange.config import config_tree
from detection.exchange.export_config import export_config
from detection.job.job import open_job
from detection.job.trunk import load_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.plumbing.config.files import write_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone

MakeRecipe = Callable[..., Recipe]
WriteCheckpoint = Callable[..., LoadedBackbone]


def test_file_is_the_engine_s_config_and_weights(
    make_recipe: MakeRecipe,
    write_checkpoint: WriteCheckpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The YAML holds the keys that the engine itself trains with, and names the weights."""
    recipe, checkpoint = make_recipe(), write_checkpoint().path
    config, out = tmp_path / "recipe.yaml", tmp_path / "out.yaml"
    write_config(recipe, config)
    assert main(["export-config", str(config), str(out), "--checkpoint", str(checkpoint)]) == 0
    assert f"weights  {tmp_path / 'out.pkl'}" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    expected = config_tree(recipe, load_trunk(checkpoint, recipe.model), 3, "polygon")
    expected["MODEL"] |= {"WEIGHTS": str(tmp_path / "out.pkl"), "DEVICE": "cpu"}
    assert yaml.safe_load(text) == expected
    assert "&id" not in text
    assert "#   register_coco_instances('shapes_train', {}, '" in text
    assert "number test annotations from 1" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.pkl",
        "out.yaml",
        "recipe.yaml",
    ]


def test_without_checkpoint_it_starts_at_random(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """No weights are written, and none are named."""
    assert export_config(make_recipe(), tmp_path / "out.yaml", None) is None
    text = (tmp_path / "out.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["MODEL"]["WEIGHTS"] == ""
    assert "# It starts from random weights." in text


@pytest.mark.parametrize(
    ("change", "out", "message"),
    [
        ({}, "out.txt", r"should end in \.yaml"),
        ({"training": {"precision": "bf16"}}, "out.yaml", "no precision 'bf16'"),
        (
            {"model": {"arch": "resnet50"}},
            "out.yaml",
            "is a resnet18, but model.arch is resnet50; set",
        ),
        ({"data": {"train_annotations": "absent.json"}}, "out.yaml", "cannot read annotations"),
    ],
)
def test_mistakes_write_nothing(
    make_recipe: MakeRecipe,
    write_checkpoint: WriteCheckpoint,
    tmp_path: Path,
    change: dict[str, Any],
    out: str,
    message: str,
) -> None:
    """Recipes that cannot be exported are refused before a file is written."""
    with pytest.raises(UserError, match=message):
        export_config(make_recipe(**change), tmp_path / out, write_checkpoint().path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.detectron2
@pytest.mark.parametrize(("arch", "on_c4"), [("resnet18", False), ("resnet50", True)])
def test_detectron2_s_own_trainer_trains_the_same_model(
    make_recipe: MakeRecipe,
    write_checkpoint: WriteCheckpoint,
    c4: dict[str, Any],
    arch: str,
    on_c4: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DefaultTrainer, fed with the same images and draws, ends at our tensors, bitwise.

    Its readers of config and weights, its optimizer, schedule, precise BN and loop are its own.
    """
    from detectron2.config import get_cfg
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.engine import DefaultTrainer
    from detectron2.utils.env import seed_all_rng

    from detection.engines.detectron2.data import training_batches
    from detection.engines.detectron2.detector import make_config
    from detection.engines.detectron2.hooks import SeedHook

    changes = {"precise_bn_iterations": 2}
    model = {"arch": arch, "trunk_norm": "BN", "head_norm": "BN", **(c4 if on_c4 else {})}
    recipe = make_recipe(engine="detectron2", training=changes, model=model)
    checkpoint, out = write_checkpoint(arch).path, tmp_path / "out.yaml"
    trunk = load_trunk(checkpoint, recipe.model)
    run_recipe(recipe, trunk, resume=False)
    export_config(recipe, out, checkpoint)
    assert ("also register Res5ROIHeadsExtraNorm" in out.read_text(encoding="utf-8")) is on_c4
    job = open_job(recipe, trunk)

    data = recipe.data
    for name, annotations, images in (
        ("shapes_train", data.train_annotations, data.train_images),
        ("shapes_test", data.test_annotations, data.test_images),
    ):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
        register_coco_instances(name, {}, str(annotations), str(images))
    config = get_cfg()
    config.merge_from_file(str(out))
    config.OUTPUT_DIR = str(tmp_path / "theirs")
    Path(config.OUTPUT_DIR).mkdir()
    seed_all_rng(config.SEED)
    monkeypatch.setattr(
        DefaultTrainer,
        "build_train_loader",
        classmethod(lambda cls, config: training_batches(make_config(job), job, 0, 0)),
    )
    trainer = DefaultTrainer(config)
    trainer.register_hooks([SeedHook(recipe.seed)])
    with caplog.at_level(logging.WARNING):
        trainer.resume_or_load(resume=False)
    warned = caplog.text.replace("num_batches_tracked", "")
    assert not re.search(r"backbone\.(bottom_up|stem|res)|roi_heads\.res5\.\d", warned)
    trainer.train()

    ours, theirs = (
        torch.load(folder / "model_final.pth", weights_only=True)["model"]
        for folder in (recipe.output_dir / "checkpoints", tmp_path / "theirs")
    )
    assert ours.keys() == theirs.keys()
    differing = [
        name
        for name, tensor in theirs.items()
        if not name.endswith("num_batches_tracked") and not torch.equal(tensor, ours[name])
    ]
    assert differing == []
