"""All that a pretraining run needs to go on exactly where it stopped."""

from typing import Any

import torch
from torch import Tensor, nn

from rsa_pretrain.backbone import build_backbone
from rsa_pretrain.checkpoint import check_tensors
from rsa_pretrain.config import RESULT_NEUTRAL_KEYS, PretrainConfig
from rsa_pretrain.config_files import flatten, to_tree
from rsa_pretrain.errors import UserError
from rsa_pretrain.methods import METHODS
from rsa_pretrain.optim import build_optimizer


class RunState:
    """Networks, optimizer, gradient scaler, step and random state of one run.

    Args:
        config: The run; ``config.seed`` decides the initial weights.
        data_fingerprint: Identifies the training images.
        device: Where the networks live.
    """

    def __init__(self, config: PretrainConfig, data_fingerprint: str, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.data_fingerprint = data_fingerprint
        self.device = device
        self.method = METHODS[config.method.name](build_backbone(config.backbone), config.method)
        # ResNets run faster with channels last, on CPUs too; shapes and values stay.
        self.method.to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(self.method, config.optimizer)
        # One scaler for the whole run; without fp16 it passes everything through.
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.training.precision == "fp16")
        self.step = 0

    def trainer_state(self) -> dict[str, Any]:
        """Return everything but the networks, as tensors and plain values."""
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            },
            "config": to_tree(self.config),
            "data_fingerprint": self.data_fingerprint,
        }

    def restore(self, model_state: dict[str, Tensor], trainer_state: dict[str, Any]) -> None:
        """Take up a saved state.

        Raises:
            UserError: If it belongs to another config or other images, or is not whole.
        """
        try:
            self._refuse_another_run(trainer_state["config"], trainer_state["data_fingerprint"])
            check_tensors(model_state, self.method.state_dict(), "the networks of the checkpoint")
            self.method.load_state_dict(model_state, strict=True)
            self.optimizer.load_state_dict(trainer_state["optimizer"])
            self.scaler.load_state_dict(trainer_state["scaler"])
            torch.set_rng_state(trainer_state["random"]["cpu"])
            if self.device.type == "cuda" and trainer_state["random"]["cuda"]:
                torch.cuda.set_rng_state_all(trainer_state["random"]["cuda"])
            self.step = int(trainer_state["step"])
        except KeyError as error:
            raise UserError(f"the checkpoint's trainer state lacks {error}") from None

    def first_non_finite(self) -> str | None:
        """Return the name of a tensor that holds NaN or infinity, if there is one."""
        for name, tensor in self.method.state_dict().items():
            if not tensor.isfinite().all():
                return name
        return None

    def _refuse_another_run(self, saved_config: dict[str, Any], saved_data: str) -> None:
        before, now = flatten(saved_config), flatten(to_tree(self.config))
        changed = [
            f"{key} (was {before.get(key)}, is {now.get(key)})"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and key not in RESULT_NEUTRAL_KEYS
        ]
        if changed:
            raise UserError(
                "cannot resume with settings that change the result: "
                + ", ".join(changed)
                + "; restore them or choose another output_dir"
            )
        if saved_data != self.data_fingerprint:
            raise UserError(
                "cannot resume: the training images are not those the run started with; "
                "restore them or choose another output_dir"
            )


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(tensor.numel() for tensor in module.parameters() if tensor.requires_grad)
