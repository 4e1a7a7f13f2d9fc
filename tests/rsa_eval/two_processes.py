"""Worker of rsa_eval's tests under torchrun: ``two_processes.py WHAT TASK.json``."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig
from rsa_eval.evaluators.diagnostics.view_features import view_features
from rsa_eval.evaluators.knn.settings import KNNConfig, KNNSetting
from rsa_eval.evaluators.knn.vote import knn_answers
from rsa_eval.features.extract import stored_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.share import own_share
from rsa_eval.features.subject import load_subject
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.distributed import process_group, rank
from rsa_pretrain.plumbing.errors import UserError


def features(task, folder):
    """Write the features each process receives and the batches it computed."""
    config = parse_tree(KNNConfig, task["config"], "task")
    subject = load_subject(Path(task["run"]), config)
    sizes = []
    subject.backbone.conv1.register_forward_hook(lambda *_: sizes.append(1))
    images = open_images(config.data, "test")
    plain = config.model_copy(update={"cache_dir": None})
    outcome = {}
    for name, settings in (("memory", plain), ("cache", config), ("again", config)):
        sizes.clear()
        found = stored_features(subject, images, settings, "test")
        outcome |= {name: found.features.tolist(), f"forwards_{name}": len(sizes)}
    (folder / f"features-{rank()}.json").write_text(json.dumps(outcome))


def failing(task, folder):
    """Fail in a batch of the last process; write what each process is told, in memory first."""
    config = parse_tree(KNNConfig, task["config"], "task")
    subject = load_subject(Path(task["run"]), config)
    images = open_images(config.data, "test")

    seen = []

    def fail(*_):
        seen.append(None)
        if len(seen) > task["good"]:
            raise UserError("cannot decode 'a.png'")

    if rank() == 1:
        subject.backbone.conv1.register_forward_hook(fail)
    told = []
    for settings in (config.model_copy(update={"cache_dir": None}), config):
        seen.clear()
        try:
            stored_features(subject, images, settings, "test")
        except UserError as error:
            told.append(str(error))
    (folder / f"failing-{rank()}.json").write_text(json.dumps(told))


def knn(task, folder):
    """Write the counts that each process finds, of queries and of the bank itself."""
    bank, queries = (
        LabelledFeatures(*map(torch.tensor, task[name])) for name in ("bank", "queries")
    )
    settings = [KNNSetting(**setting) for setting in task["settings"]]
    cpu, share = torch.device("cpu"), own_share()
    answers = [
        *knn_answers(bank, queries, settings, 7, 64, cpu, share),
        *knn_answers(bank, None, settings, 7, 64, cpu, share),
    ]
    (folder / f"knn-{rank()}.json").write_text(json.dumps([asdict(own.counts) for own in answers]))


def views(task, folder):
    """Write the features of views each process receives, and the batches it computed."""
    outcomes = []
    for tree in task["configs"]:
        config = parse_tree(DiagnosticsConfig, tree, "task")
        subject = load_subject(Path(task["run"]), config)
        sizes = []
        subject.backbone.conv1.register_forward_hook(lambda *_, sizes=sizes: sizes.append(1))
        with frozen(subject.backbone):
            found = view_features(subject, open_images(config.data, "test"), config)
        every = torch.stack([*found.weak, *found.aggressive])
        outcomes.append({"features": every.tolist(), "forwards": len(sizes)})
    (folder / f"views-{rank()}.json").write_text(json.dumps(outcomes))


def main(what, path):
    """Run the task."""
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        TASKS[what](json.loads(path.read_text()), path.parent)


TASKS = {"features": features, "failing": failing, "knn": knn, "views": views}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
