import logging
from collections.abc import Callable

import pytest
import torch

from detection.job import job as job_module
from detection.job.job import open_job
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("trunk_norm", "head_norm", "expected"),
    [
        ("SyncBN", "SyncBN", ("BN", "BN")),
        ("SyncBN", "none", ("BN", "none")),
        ("BN", "SyncBN", ("BN", "BN")),
    ],
)
def test_one_process_takes_bn_and_says_so(
    make_recipe: MakeRecipe,
    caplog: pytest.LogCaptureFixture,
    trunk_norm: str,
    head_norm: str,
    expected: tuple[str, str],
) -> None:
    """SyncBN in a single process is BN: one line in the log, one deviation in the record."""
    recipe = make_recipe(model={"trunk_norm": trunk_norm, "head_norm": head_norm})
    with caplog.at_level(logging.INFO):
        job = open_job(recipe, random_trunk(recipe.model, 0))
    assert (job.recipe.model.trunk_norm, job.recipe.model.head_norm) == expected
    assert job.deviations == ("one process: BN in place of SyncBN",)
    assert caplog.messages.count(job.deviations[0]) == 1


def test_several_processes_keep_syncbn_on_gpus_alone(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SyncBN needs several processes and GPUs; BN and FrozenBN are unchanged."""
    trunk = random_trunk(make_recipe().model, 0)
    monkeypatch.setattr(job_module, "world_size", lambda: 2)
    on_cpu = open_job(make_recipe(), trunk)
    assert on_cpu.recipe.model.trunk_norm == "BN"
    assert on_cpu.deviations == ("processes without GPUs: each its own BN in place of SyncBN",)
    monkeypatch.setattr(job_module, "resolve_device", lambda name: torch.device("cuda", 0))
    on_gpus = open_job(make_recipe(), trunk)
    assert on_gpus.recipe.model.trunk_norm == "SyncBN"
    assert on_gpus.deviations == ()
    monkeypatch.setattr(job_module, "world_size", lambda: 1)
    frozen = open_job(make_recipe(model={"trunk_norm": "FrozenBN", "head_norm": "BN"}), trunk)
    assert frozen.recipe.model.trunk_norm == "FrozenBN"
    assert frozen.deviations == ()
