import pytest
import torch

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training.batch_plan import plan_batches
from rsa_pretrain.training.run_state import RunState


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": {"state": {}, "param_groups": []}}, "is damaged: loaded state dict"),
        ({"optimizer": 3}, "is damaged"),
        ({"step": None}, "is damaged"),
        ({"random": {"cpu": [1]}}, "is damaged"),
        ({"config": 3}, "is damaged"),
    ],
)
def test_a_damaged_trainer_state_is_named(narrow_resnets, tiny_config, change, message):
    """Whatever it holds in the place of a part, resuming ends in one line."""
    state = RunState(
        tiny_config, "0", torch.device("cpu"), plan_batches(tiny_config.training, 1, 0)
    )
    model, trainer = state.method.state_dict(), state.trainer_state()
    with pytest.raises(UserError, match=f"^the trainer state of 'x' {message}"):
        state.restore(model, trainer | change, source="'x'")


def test_a_trainer_state_without_a_part_is_named(narrow_resnets, tiny_config):
    """So is one from which something was left out."""
    state = RunState(
        tiny_config, "0", torch.device("cpu"), plan_batches(tiny_config.training, 1, 0)
    )
    model, trainer = state.method.state_dict(), state.trainer_state()
    del trainer["random"]
    with pytest.raises(UserError, match=r"^the trainer state of 'x' lacks 'random'"):
        state.restore(model, trainer, source="'x'")
