"""Files with the names and types that the projects' own scripts wrote (docs/writers.md)."""

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml

from rsa_pretrain.weights.foreign.recognise import recognise
from rsa_pretrain.weights.tensor_check import differing

WRITTEN = yaml.safe_load(Path(__file__).with_name("written.yaml").read_text(encoding="utf-8"))
OBJECTS = {
    "int": 1,
    "str": "resnet18",
    "tuple": (50.0, 100.0),
    "dict": {"state": {0: {"mu": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "Namespace": argparse.Namespace(top1=50.0, top5=100.0),
    "Tensor": torch.tensor(50.0),
}


def content_written(facts, network):
    """Return the tree of a file and its networks."""
    tree = {key: OBJECTS[kind] for key, kind in facts.get("beside", {}).items()}
    networks = {}
    for seed, (name, place) in enumerate(facts["networks"].items(), start=1):
        networks[name] = network(seed, stem=facts.get("stem", "standard"))
        container, _, prefix = place.rpartition("/")
        part = tree.setdefault(container, OrderedDict()) if container else tree
        part.update({prefix + key: tensor for key, tensor in networks[name].items()})
    for container, modules in facts.get("others", {}).items():
        part = tree.setdefault(container, OrderedDict()) if container else tree
        for module, leaves in modules.items():
            names = [f"{module}.{leaf}".removeprefix(".") for leaf in leaves.split()]
            part.update({name: torch.ones(2, 2) for name in names})
    return tree, networks


@pytest.mark.parametrize("writer", WRITTEN)
def test_written_files_give_every_network(network, as_content, writer):
    """Each network is found where its project put it; the others' tensors are all dropped."""
    facts = WRITTEN[writer]
    tree, networks = content_written(facts, network)
    content = as_content(tree)
    for name, wanted in networks.items():
        plan = recognise(content, network=name if len(networks) > 1 else None).plan
        assert (plan.layout.name, plan.prefix) == (facts["layout"], facts["networks"][name])
        assert not differing(plan.tensors, wanted)
        dropped = sum(len(paths) for paths in plan.dropped.values())
        assert dropped + len(wanted) == len(content.tensors)
