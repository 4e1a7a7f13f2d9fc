"""Replay a step's forward and backward pass as one CUDA graph.

A pass of a small network is bound by the time that the CPU takes to launch its thousand operations.
A graph holds them all, and one call launches it. What changes from step to step lies in tensors
at fixed addresses: the views, the labels, the schedules' numbers, parameters, buffers and
gradients. Learning rate, optimizer, target update and gradient norm stay outside.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from rsa_pretrain.methods.base import StepOutput
from rsa_pretrain.plumbing.device import compute_dtype
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training.passes import EagerPasses
from rsa_pretrain.training.run_state import RunState

_log = logging.getLogger(__name__)

# Real steps before the capture: they choose algorithms, compile and fill caches.
EAGER_STEPS = 3


class CudaGraph:
    """Work of the current stream, recorded once and replayed."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def record(self, work: Callable[[], StepOutput]) -> StepOutput:
        """Record work without doing it; its result is that of the last replay.

        Raises:
            RuntimeError: If something in it cannot be recorded.
        """
        # Loaders' threads call CUDA meanwhile: only this thread's calls are checked.
        with torch.cuda.graph(
            self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
        ):
            return work()

    def replay(self) -> None:
        """Do the recorded work."""
        self._graph.replay()


class CapturedPasses:
    """Runs the first passes eagerly, captures one, and replays it ever after.

    The eager passes are real steps on the same stream, so nothing is trained twice. If the capture
    fails, every step is eager.

    Args:
        eager: The passes, one to a step.
        on_failure: Called with the reason if the capture fails.
    """

    def __init__(self, eager: EagerPasses, on_failure: Callable[[str], None]) -> None:
        self.eager = eager
        self._on_failure = on_failure
        self._graph: CudaGraph | None = CudaGraph()
        self._eager_left = EAGER_STEPS
        self._views: list[Tensor] = []
        self._labels: Tensor | None = None
        self._scalars: dict[str, Tensor] = {}
        self._output: StepOutput | None = None

    def begin_step(self) -> None:
        """Forget the gradients of the step before, unless the graph overwrites them."""
        if self._output is None:
            self.eager.begin_step()

    def __call__(
        self, views: list[Tensor], scalars: Mapping[str, float], labels: Tensor | None
    ) -> StepOutput:
        """Compute a step's gradients; the result is overwritten by the next step."""
        self._fill(views, scalars, labels)
        if self._eager_left == 0 and self._output is None and self._graph is not None:
            self._capture(self._graph)
        self._eager_left = max(0, self._eager_left - 1)
        if self._output is None or self._graph is None:
            return self._pass()
        self._graph.replay()
        return self._output

    def _fill(
        self, views: list[Tensor], scalars: Mapping[str, float], labels: Tensor | None
    ) -> None:
        """Copy a batch to where the graph reads it; a view is cast and laid out by the copy."""
        if not self._views:
            state = self.eager.state
            dtype = compute_dtype(state.config.training.precision)
            self._views = [
                torch.empty_like(view, dtype=dtype, memory_format=state.layout) for view in views
            ]
            self._labels = None if labels is None else torch.empty_like(labels)
            self._scalars = {
                name: torch.zeros((), dtype=torch.float64, device=state.device) for name in scalars
            }
        for own, view in zip(self._views, views, strict=True):
            own.copy_(view)
        if self._labels is not None and labels is not None:
            self._labels.copy_(labels)
        for name, number in scalars.items():
            self._scalars[name].fill_(number)

    def _pass(self) -> StepOutput:
        return self.eager(self._views, self._scalars, self._labels)

    def _capture(self, graph: CudaGraph) -> None:
        # Without gradients to add to, the backward pass overwrites them in every replay.
        self.eager.begin_step()
        try:
            self._output = graph.record(self._pass)
        except RuntimeError as error:
            self._graph = None
            self.eager.begin_step()
            self._on_failure(f"the capture failed: {_cause(error)}")
        else:
            _log.info("forward and backward pass are captured as a CUDA graph")


def _cause(error: RuntimeError) -> str:
    """Return the first line of the error behind one; ending a broken capture fails too."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return str(error).strip().partition("\n")[0]


def choose_passes(
    eager: EagerPasses, profile: bool, on_failure: Callable[[str], None]
) -> tuple[EagerPasses | CapturedPasses, str | None]:
    """Choose how a run computes its passes: captured where device and settings allow it.

    Args:
        eager: Its passes.
        profile: Whether some steps are profiled.
        on_failure: As ``CapturedPasses``.

    Returns:
        The passes, and what the run's machine file says of a GPU's steps.

    Raises:
        UserError: If a capture is required and cannot be done.
    """
    state = eager.state
    wanted, obstacle = state.config.training.cuda_graph, find_obstacle(state, profile)
    if wanted is not False and obstacle is None:
        return CapturedPasses(eager, on_failure), "captured"
    if wanted is True:
        raise UserError(f"training.cuda_graph is true, but {obstacle}; set it to auto or false")
    if state.device.type != "cuda":
        return eager, None
    if wanted is False:
        return eager, "eager"
    _log.warning("steps are not captured as a CUDA graph: %s", obstacle)
    return eager, f"eager: {obstacle}"


def find_obstacle(state: RunState, profile: bool) -> str | None:
    """Return why a run's passes cannot be captured, or None if they can be."""
    if state.device.type != "cuda":
        return f"the device is '{state.device.type}', and only a GPU has CUDA graphs"
    if state.plan.world_size > 1:
        return f"{state.plan.world_size} processes exchange gradients during the backward pass"
    if state.plan.num_passes > 1:
        return f"a step takes {state.plan.num_passes} passes, and a graph holds one"
    if profile:
        return "--profile cannot tell the parts of a replayed step apart"
    if not state.method.is_replayable:
        return f"the forward pass of {type(state.method).__name__} changes more than tensors"
    return None


@contextmanager
def capture_stream(device: torch.device) -> Iterator[None]:
    """Make another stream than the default one, which cannot be captured, current in the block."""
    default = torch.cuda.current_stream(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(default)
    with torch.cuda.stream(stream):
        yield
    default.wait_stream(stream)
