"""Check that nothing a layout keeps beside a network's weights makes an import refuse them."""

import numpy as np
import pytest
import torch

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.foreign.layouts import LAYOUTS
from rsa_pretrain.weights.foreign.recognise import recognise

NAMES = [layout.name for layout in LAYOUTS]
BYTES = torch.zeros(16, dtype=torch.uint8)
STATE = {
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(5.0)}}},
    "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
    "optimizer_states": [{"state": {0: {"exp_avg_sq": torch.ones(3)}}}],
    "lr_scheduler": {"base_lrs": torch.ones(2), "_step_count": 3},
    "lr_schedulers": [{"last_epoch": torch.tensor(3)}],
    "param_schedulers": [{"last_step": torch.tensor(3)}],
    "scaler": {"scale": torch.tensor(65536.0)},
    "message_hub": {
        "log_scalars": {"train/loss": {"_log_history": np.ones(4), "_count_history": np.ones(4)}},
        "runtime_info": {"iter": 7, "loss": torch.tensor(1.5)},
    },
    "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(1.0)}},
    "loops": {"fit_loop": {"state_dict": {"weight": torch.tensor(2.0)}}},
    "hyper_parameters": {"weight": torch.ones(3)},
    "meta": {"palette": torch.ones(3), "epoch": 3},
    "args": {"mean": torch.ones(3)},
    "config": {"lr": torch.tensor(0.1)},
    "epoch": torch.tensor(3),
    "global_step": torch.tensor(3),
    "best_acc": torch.tensor(70.5),
    "best_acc1": torch.tensor(70.5),
    "rng_state": BYTES,
    "cuda_rng_state_all": [BYTES, BYTES],
    "loss_history": [torch.tensor(1.0)],
    "shadow_params": [torch.ones(3, 3)],
}


@pytest.mark.parametrize("name", NAMES)
def test_training_state_is_dropped_in_every_layout(example, name):
    """Optimizer, scheduler, hub, random state and the like change nothing of what is taken."""
    made = example(name)
    wanted = recognise(made.content()).plan
    made.tree = STATE | made.tree
    plan = recognise(made.content()).plan
    assert (plan.layout, plan.network) == (wanted.layout, wanted.network)
    assert plan.tensors.keys() == wanted.tensors.keys()
    assert all(torch.equal(plan.tensors[key], wanted.tensors[key]) for key in wanted.tensors)


@pytest.mark.parametrize("key", STATE)
@pytest.mark.parametrize("container", ["", "state_dict"])
def test_each_part_of_training_state_is_known(network, as_content, container, key):
    """Each is dropped and counted beside bare weights and beside a container of them."""
    weights = {container: network(1)} if container else network(1)
    plan = recognise(as_content({**weights, key: STATE[key]})).plan
    dropped = {path for paths in plan.dropped.values() for path in paths}
    assert dropped
    assert all(path == key or path.startswith(f"{key}/") for path in dropped)
    assert len(plan.tensors) == len(network(1))


@pytest.mark.parametrize("beside", ["message_hub", "meta"])
def test_mmengine_checkpoints_are_read(network, as_content, beside):
    """A file of mmengine's runner is an MMPretrain checkpoint, with its hub or without."""
    weights = {f"backbone.{name}": tensor for name, tensor in network(1).items()}
    tree = {"state_dict": weights | {"head.fc.weight": torch.ones(10, 512)}, beside: STATE[beside]}
    plan = recognise(as_content(tree)).plan
    assert plan.layout.name == "mmpretrain"
    assert torch.equal(plan.tensors["bn1.bias"], network(1)["bn1.bias"])


def test_mmengines_second_network_is_documented(network, as_content):
    """Its EMAHook keeps two: the averaged one is taken, the other if it is asked for."""
    states = [{f"backbone.{key}": part for key, part in network(seed).items()} for seed in (1, 2)]
    tree = {
        "meta": {"epoch": 3},
        "state_dict": states[0],
        "ema_state_dict": {f"module.{key}": part for key, part in states[1].items()}
        | {"steps": torch.tensor(4), "module.head.fc.weight": torch.ones(10, 512)},
    }
    for asked, seed in ((None, 1), ("ema_state_dict", 2)):
        plan = recognise(as_content(tree), network=asked).plan
        assert torch.equal(plan.tensors["bn1.bias"], network(seed)["bn1.bias"])


@pytest.mark.parametrize("key", ["ema", "state_dict_swa", "averaged_model"])
def test_a_second_network_is_no_training_state(network, as_content, example, key):
    """Undocumented, it is never passed over: refused by its project's layout, else ambiguous."""
    with pytest.raises(UserError, match=f"has 2 networks, under 'state_dict/', '{key}/'"):
        recognise(as_content({"state_dict": network(1), key: network(2)}))
    made = example("simsiam")
    made.tree = made.tree | {key: network(2)}
    with pytest.raises(UserError, match=f"120 unexpected: {key}/conv1.weight"):
        recognise(made.content())


@pytest.mark.parametrize("settings", ["hyper_parameters", "args"])
def test_a_network_among_the_settings_is_not_the_trained_one(network, as_content, settings):
    """Lightning's save_hyperparameters keeps a network that was an argument; alone it is taken."""
    named = {f"backbone.{key}": tensor for key, tensor in network(1).items()}
    given = {settings: {"backbone": network(2)}}
    for tree, seed in (({"state_dict": named} | given, 1), (given, 2)):
        plan = recognise(as_content(tree)).plan
        assert torch.equal(plan.tensors["bn1.bias"], network(seed)["bn1.bias"])


@pytest.mark.parametrize("path", ["criterion/weight", "adapter/layer1.0.lora_A", "stray"])
def test_what_may_be_a_networks_is_no_training_state(example, path):
    """Beside a documented layout's containers, parameters of some module are still refused."""
    made = example("moco")
    container, _, key = path.rpartition("/")
    if container:
        made.tree = made.tree | {container: {key: torch.ones(2)}}
    else:
        made.state[key] = torch.ones(2)
    with pytest.raises(UserError, match=f"1 unexpected: .*{path}"):
        recognise(made.content())
