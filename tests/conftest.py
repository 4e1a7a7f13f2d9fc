"""Shared fixtures: seeds, a tiny run, real data where it is present."""

import os
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import narrow
import preloaded
import pytest
import torch
from quick import without_interpreters

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing import atomic_files
from rsa_pretrain.plumbing.config.files import parse_tree

# Processes share the cores (pytest -n); threads that wait for one another only slow them down.
torch.set_num_threads(1)

TINY_RUN = {
    "data": {"name": "digits", "image_size": 16, "num_train_images": 32, "num_workers": 0},
    "backbone": {"arch": "resnet18", "stem": "standard"},
    "method": {"name": "rsa", "hidden_dim": 16, "output_dim": 8, "beta_base": 0.3},
    "optimizer": {"base_lr": 0.5, "weight_decay": 5e-4},
    "training": {"epochs": 2, "global_batch_size": 8, "device": "cpu"},
    "monitor": {"log_every_steps": 1},
}


def pytest_runtest_setup(item):
    """Skip what this machine cannot run, and say why."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if item.get_closest_marker("detectron2") and find_spec("detectron2") is None:
        pytest.skip("detectron2 is not installed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what asks for the fixture that starts processes, before tests are chosen by marks."""
    for item in items:
        if "python" in item.fixturenames:
            item.add_marker(pytest.mark.process)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Hold tests without the mark ``process`` to it, with their fixtures."""
    with nullcontext() if item.get_closest_marker("process") else without_interpreters():
        return (yield)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _leave_files_in_the_page_cache(monkeypatch):
    """Waiting for the disk takes longer than the tests; no test cuts the power."""
    monkeypatch.setattr(atomic_files, "_flush_to_disk", lambda path: None)


@pytest.fixture
def tiny_tree(tmp_path):
    """Plain settings of a run of eight steps on 32 digits, to change at will."""
    return {"output_dir": str(tmp_path / "run")} | {
        name: dict(section) for name, section in TINY_RUN.items()
    }


@pytest.fixture
def tiny_config(tiny_tree):
    """Validated settings of that run."""
    return parse_tree(PretrainConfig, tiny_tree, "tiny run")


@pytest.fixture
def small_counts(monkeypatch):
    """Let the sets of the transfer suite state the numbers of images of the small trees."""
    import transfer_trees

    from rsa_eval.evaluators.shared.published_lists import PUBLISHED_LISTS, PublishedLists
    from rsa_pretrain.data.sets import data_set

    small = PublishedLists(transfer_trees.VOC2007_COUNTS, num_classes=2)
    monkeypatch.setitem(PUBLISHED_LISTS, "voc2007", small)
    for name, numbers in transfer_trees.COUNTS.items():
        counts = data_set(name).counts
        for split, number in numbers.items():
            monkeypatch.setitem(counts, split, replace(counts[split], images=number))


@pytest.fixture
def narrow_resnets():
    """Make ResNets narrow ones, of which many runs are trained in seconds."""
    with narrow.narrow_resnets():
        yield


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """Starts programs in processes that have imported torch and this toolkit."""
    return preloaded.Python(tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="session")
def run_two_processes(python):
    """A function that runs a program, ``FILE`` or ``-m MODULE`` with words, in two processes."""
    return python.run_two


@pytest.fixture(scope="session")
def rsa_data():
    """Folder with cifar10/, clothing_mini/ and coco_mini/, named by RSA_DATA."""
    folder = os.environ.get("RSA_DATA")
    if not folder:
        pytest.skip("RSA_DATA names no folder of real data")
    return Path(folder)


def pytest_addoption(parser):
    """Add the switch that rewrites committed loss files."""
    parser.addoption("--regenerate-golden", action="store_true", help="rewrite tests/golden")
