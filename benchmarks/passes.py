"""The bare passes of a step of RSA: its networks' work without views, loss, optimizer or EMA."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Device
from benchmarks.modes import Mode, in_mode
from benchmarks.training import OUTPUT_DIM
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.methods.rsa import RSA as Method
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.training.batch_plan import plan_batches
from rsa_pretrain.training.run_state import RunState

# Two forward and backward (a backward costs two forwards), and two forward.
FORWARDS_PER_STEP = 2 * 3 + 2


def prepared_passes(config: PretrainConfig, mode: Mode, device: Device) -> Callable[[], object]:
    """Return a function that runs the passes of a batch of noise, in the way of a mode.

    Args:
        config: A run of RSA; its networks are compiled if they are in training.
        mode: As the steps are run that the passes are compared with.
        device: Device of the networks.
    """
    state = RunState(config, "", torch.device(device), plan_batches(config.training, 1, 0))
    batch_size, side = config.training.global_batch_size, config.data.image_size
    generator = torch.Generator().manual_seed(config.seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    shape = (batch_size, 3, side, side)
    views = [noise(*shape).to(memory_format=state.layout) for _ in range(4)]
    gradient = noise(batch_size, OUTPUT_DIM)
    method, precision = state.method, config.training.precision
    return in_mode(lambda: bare_passes(method, views, gradient, precision), mode, device)


def bare_passes(
    method: Method, views: list[Tensor], gradient: Tensor, precision: Precision
) -> None:
    """Pass two views forward and backward through the online network, and two through its target.

    Args:
        method: The networks.
        views: ``[v_a, v_a', v_w, v_w']``, (N, 3, H, W).
        gradient: Gradient of the predictions, (N, D); there is no loss.
        precision: Autocast type of the forward passes.
    """
    method.zero_grad()
    # One context, so that weights are cast once for both views, as in the trainer's step.
    with autocast(precision, gradient.device):
        predictions = [
            method.predictor(method.projector(method.backbone(view))) for view in views[:2]
        ]
        with torch.no_grad():
            for view in views[2:]:
                method.target_projector(method.target_backbone(view))
    torch.autograd.backward(predictions, [gradient.to(each.dtype) for each in predictions])
