"""Keep the full state of a pretraining run, to resume exactly where it stopped."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.batch_counts import count_batches_together
from rsa_pretrain.components.memory_layout import training_layout
from rsa_pretrain.components.optim import build_optimizer
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.shards.stream import ShardSet
from rsa_pretrain.methods.base import Method
from rsa_pretrain.methods.registry import METHODS
from rsa_pretrain.methods.settings import SupervisedConfig
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training.batch_plan import BatchPlan
from rsa_pretrain.training.continuation import RESUME, Continuation
from rsa_pretrain.weights.restoring import restoring
from rsa_pretrain.weights.tensor_check import check_tensors, non_finite

_log = logging.getLogger(__name__)


class RunState:
    """Networks, optimizer, gradient scaler, step and random state of one run.

    Args:
        config: The run; ``config.seed`` determines the initial weights.
        data_fingerprint: Identifies the training images.
        device: Device of the networks.
        plan: How each batch is split over processes and passes.
    """

    def __init__(
        self,
        config: PretrainConfig,
        data_fingerprint: str,
        device: torch.device,
        plan: BatchPlan,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.data_fingerprint = data_fingerprint
        self.device = device
        self.plan = plan
        self.method = build_method(config)
        if config.training.sync_batchnorm and plan.world_size > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.method)  # type: ignore[no-untyped-call]
        for network in self.method.children():
            count_batches_together(network)
        # Shapes and values do not change.
        self.layout = training_layout(self.method, device)
        self.method.to(device).to(memory_format=self.layout).train()
        self.optimizer = build_optimizer(self.method, config.optimizer)
        # One scaler for the whole run; without fp16 it is a no-op.
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.training.precision == "fp16")
        if config.training.compile:
            # Backbones alone: heads and queues gain little, and each costs its own compilation.
            for network in self.method.children():
                if isinstance(network, ResNet):
                    network.compile(fullgraph=True, dynamic=False)
        self.step = 0

    def check_images(self, images: ImageSet | ShardSet) -> None:
        """Refuse images the method cannot train on.

        Raises:
            UserError: If it needs labels and the images have none, or have another number of
                classes; or if the loss needs the whole batch in one pass.
        """
        method = self.config.method
        if isinstance(method, SupervisedConfig):
            if isinstance(images, ShardSet):
                raise UserError(
                    f"method '{method.name}' cannot train on data.name={self.config.data.name}; "
                    "unpack the shards and set data.name=imagefolder"
                )
            images.require_labels()
            if len(images.class_names) != method.num_classes:
                raise UserError(
                    f"method.num_classes is {method.num_classes}, but the {images.name} images "
                    f"have {len(images.class_names)} classes; set "
                    f"method.num_classes={len(images.class_names)}"
                )
        if self.method.needs_whole_batch and self.plan.num_passes > 1:
            raise UserError(
                f"method '{method.name}' needs its whole batch in one pass, but it is split, "
                f"{self.plan}; set training.batch_size_per_device=null and a "
                "training.global_batch_size that fits, or use more devices"
            )

    @property
    def batchnorm_group(self) -> int:
        """Number of images that share BatchNorm statistics."""
        shared = self.plan.world_size if self.config.training.sync_batchnorm else 1
        return self.plan.batch_size_per_device * shared

    def trainer_state(self) -> dict[str, Any]:
        """Return everything but the networks, as tensors and plain values."""
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": [torch.cuda.get_rng_state(self.device)] if self._on_gpu else [],
            },
            "batchnorm_group": self.batchnorm_group,
            "streams": self._streams,
            "config": to_tree(self.config),
            "data_fingerprint": self.data_fingerprint,
        }

    def restore(
        self,
        model_state: dict[str, Tensor],
        trainer_state: dict[str, Any],
        continuation: Continuation = RESUME,
        source: str = "the checkpoint",
    ) -> None:
        """Restore a saved state.

        Args:
            model_state: The networks.
            trainer_state: Everything else.
            continuation: Defines what may differ from the run that saved it.
            source: Name of the checkpoint in errors.

        Raises:
            UserError: If it belongs to another config or other images, or is incomplete or
                damaged.
        """
        with restoring(source):
            continuation.refuse_other_settings(trainer_state["config"], self.config)
            continuation.refuse_other_images(
                trainer_state["data_fingerprint"], self.data_fingerprint
            )
            check_tensors(model_state, self.method.state_dict(), f"the networks of {source}")
            self.method.load_state_dict(model_state, strict=True)
            self.optimizer.load_state_dict(trainer_state["optimizer"])
            self.scaler.load_state_dict(trainer_state["scaler"])
            torch.set_rng_state(trainer_state["random"]["cpu"])
            if self._on_gpu and trainer_state["random"]["cuda"]:
                torch.cuda.set_rng_state(trainer_state["random"]["cuda"][0], self.device)
            self.step = int(trainer_state["step"])
            self._report_changes(int(trainer_state["batchnorm_group"]), trainer_state["streams"])

    def first_non_finite(self) -> str | None:
        """Return the name of a tensor that contains NaN or infinity, if there is one."""
        return next(iter(non_finite(self.method.state_dict())), None)

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def _streams(self) -> list[int]:
        """Return the numbers that determine the order of streamed shards within an epoch."""
        return [self.plan.world_size, max(1, self.config.data.num_workers)]

    def _report_changes(self, batchnorm_group: int, streams: list[int]) -> None:
        if batchnorm_group != self.batchnorm_group:
            _log.warning(
                "BatchNorm statistics now come from %d images at a time, before the stop from %d; "
                "the run continues, but not exactly as it would have",
                self.batchnorm_group,
                batchnorm_group,
            )
        if self.config.data.name == "webdataset" and streams != self._streams:
            _log.warning(
                "shards are now read by %d processes times %d loader processes, before the stop "
                "by %d times %d; an epoch begun before the stop may repeat or miss images",
                *self._streams,
                *streams,
            )


def build_method(config: PretrainConfig) -> Method:
    """Build a run's method, with new weights."""
    build: Callable[[nn.Module, Any], Method] = METHODS[config.method.name]
    return build(build_backbone(config.backbone), config.method)


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(tensor.numel() for tensor in module.parameters() if tensor.requires_grad)
