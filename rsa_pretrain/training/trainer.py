"""Run the pretraining loop, the only one."""

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from tqdm import tqdm

from rsa_pretrain.components.backbone import gflops_per_image
from rsa_pretrain.components.collapse import CollapseMonitor
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.shards.stream import ShardSet
from rsa_pretrain.methods.base import StepOutput
from rsa_pretrain.plumbing.device import (
    check_precision,
    explained_out_of_memory,
    resolve_device,
    tuned_convolutions,
)
from rsa_pretrain.plumbing.distributed import StopVote, data_parallel, is_main, rank, world_size
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.meter import Meter
from rsa_pretrain.plumbing.metrics_log import MetricsLog
from rsa_pretrain.plumbing.progress import progress_bar
from rsa_pretrain.plumbing.stop_signal import StopSignal, exit_code
from rsa_pretrain.training.batch_plan import plan_batches
from rsa_pretrain.training.captured import capture_stream, choose_passes
from rsa_pretrain.training.extension import Parent
from rsa_pretrain.training.feed import training_views
from rsa_pretrain.training.learning_rate import learning_rate
from rsa_pretrain.training.passes import EagerPasses
from rsa_pretrain.training.prefetch import Ready
from rsa_pretrain.training.profiling import part, profiled_steps
from rsa_pretrain.training.run_folder import RunFolder
from rsa_pretrain.training.run_state import RunState, count_parameters

_log = logging.getLogger(__name__)

_MEMORY_HINT = (
    "lower training.batch_size_per_device, which keeps the global batch by accumulating "
    "gradients, or use more devices"
)

Evaluate = Callable[[nn.Module], Mapping[str, float]]


class Trainer:
    """Trains one method on one data set, from step 0 or from the last checkpoint.

    Several processes train one model (``DistributedDataParallel``) if they are in a process
    group when the trainer is made. Then only the main one writes.

    Args:
        config: The run.
        images: Training images.
        resume: Resume from the run folder's last checkpoint, if it has one.
        evaluate: Evaluates the backbone every ``monitor.knn_every_epochs``; it must leave the
            backbone and the random state unchanged. Runs in the main process.
        profile: Profile some early steps, and write the result to the run folder's ``profile/``.
            The training is the same.
        parent: The finished run that ``config.extends`` names; it is extended unless the run folder
            has a checkpoint.

    Raises:
        UserError: If the run folder is in use, the batch is larger than the data set or not
            divisible, labels or the device are missing, or the checkpoint is of another run.
    """

    def __init__(
        self,
        config: PretrainConfig,
        images: ImageSet | ShardSet,
        *,
        resume: bool,
        evaluate: Evaluate | None = None,
        profile: bool = False,
        parent: Parent | None = None,
    ) -> None:
        self.config = config
        self.images = images
        self.evaluate = evaluate
        self.profile = profile
        self.device = resolve_device(config.training.device)
        check_precision(config.training.precision, self.device)
        self.plan = plan_batches(config.training, world_size(), rank())
        self.batch_size = self.plan.global_batch_size
        self.steps_per_epoch = len(images) // self.batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"training.global_batch_size {self.batch_size} is more than the "
                f"{len(images)} training images; lower it"
            )
        self.num_steps = config.training.epochs * self.steps_per_epoch
        self.state = RunState(config, images.fingerprint(), self.device, self.plan)
        self.state.check_images(images)
        # Running statistics: those of the main process are saved.
        self.network = data_parallel(self.state.method, self.device)
        self._meter = Meter(self.device, self.batch_size)
        self._collapse = CollapseMonitor()
        self._grad_norm: dict[str, Tensor] = {}
        self._readings: deque[tuple[int, Callable[[], dict[str, float]]]] = deque()
        self.folder = RunFolder(self.state, self.steps_per_epoch)
        eager = EagerPasses(self.state, self.network)
        self._passes, steps = choose_passes(eager, profile, self._note_eager)
        self.folder.open(resume, parent, steps)
        self._describe()

    def run(self) -> int:
        """Train to the end, or to a stop signal; either way the last step is saved.

        Returns:
            0 at the end of training, 128 + the signal's number if a signal stopped it.

        Raises:
            UserError: If the loss or a weight is not finite; the last good checkpoint is kept.
        """
        total, done = self.num_steps * self.batch_size, self._step * self.batch_size
        received = None
        with (
            closing(self._batches()) as batches,
            StopSignal() as stop,
            self.folder.open_log() or nullcontext() as log,
            self._profiled() as end_step,
            self._on_gpu(),
            progress_bar(total, "pretraining", "img", done) as bar,
        ):
            vote = StopVote()
            while self._step < self.num_steps and received is None:
                with explained_out_of_memory(_MEMORY_HINT):
                    self._train_step(batches)
                bar.update(self.batch_size)
                received = vote.agree(stop.received)
                saving = received is not None or self._checkpoint_due()
                if saving or self._log_due(self._step) or self._evaluation_due():
                    with part("logging"):
                        self._write_metrics(log, bar, late=not saving)
                if saving:
                    with part("checkpoint"):
                        self.folder.save()
                if saving or self._evaluation_due():
                    self._meter.restart_clock()
                end_step()
        if received is not None and self._step < self.num_steps:
            _log.warning(
                "stopped by %s after step %d of %d, saved; rerun with --resume to resume",
                received.name,
                self._step,
                self.num_steps,
            )
            return exit_code(received)
        self.folder.save_backbone()
        return 0

    @property
    def _step(self) -> int:
        return self.state.step

    def _train_step(self, batches: Iterator[Ready]) -> None:
        """Take one optimizer step, in as many passes as the plan has."""
        progress = self._step / self.num_steps
        lr = learning_rate(self.config, progress)
        optimizer, scaler = self.state.optimizer, self.state.scaler
        for group in optimizer.param_groups:
            group["lr"] = lr
        method = self.state.method
        scalars = method.scalars(progress)
        logged = self.config.method.scheduled(progress) | {"lr": lr}
        outputs: list[StepOutput] = []
        self._passes.begin_step()
        for number in range(1, self.plan.num_passes + 1):
            with part("data wait"):
                views, labels = next(batches)
            with self._synchronised(number == self.plan.num_passes):
                outputs.append(self._passes(views, scalars, labels))
            with part("logging"):
                metrics = {"loss": outputs[-1].loss, **outputs[-1].metrics}
                self._meter.add({**metrics, **logged}, 1 / self.plan.num_passes)
        with part("optimizer"):
            if self._log_due(self._step + 1):
                scaler.unscale_(optimizer)
                gradients = (parameter.grad for parameter in method.parameters())
                norm = get_total_norm([grad for grad in gradients if grad is not None])
                self._grad_norm = {"grad_norm": norm}
            scaler.step(optimizer)
            scaler.update()
        with part("target update"):
            method.after_optimizer_step(progress, outputs)
        self.state.step += 1
        self._meter.count_step()

    def _note_eager(self, reason: str) -> None:
        """Continue eagerly after a failed capture, unless the settings require one."""
        if self.config.training.cuda_graph is True:
            raise UserError(f"training.cuda_graph is true, but {reason}; set it to auto or false")
        _log.warning("steps are not captured as a CUDA graph: %s", reason)
        self.folder.correct_machine(f"eager: {reason}")

    @contextmanager
    def _on_gpu(self) -> Iterator[None]:
        """Prepare a GPU for many equal steps in the block."""
        with ExitStack() as stack:
            if self.device.type == "cuda":
                stack.enter_context(tuned_convolutions())
                stack.enter_context(capture_stream(self.device))
            yield

    def _synchronised(self, last_pass: bool) -> AbstractContextManager[None]:
        """Exchange gradients between processes in a step's last pass only."""
        if isinstance(self.network, DistributedDataParallel) and not last_pass:
            context: AbstractContextManager[None] = self.network.no_sync()
            return context
        return nullcontext()

    def _profiled(self) -> AbstractContextManager[Callable[[], None]]:
        """Return a context that yields an end-of-step callback; a no-op unless profiled."""
        if not (self.profile and is_main()):
            return nullcontext(lambda: None)
        return profiled_steps(self.folder.path / "profile", self.state.method, self.device)

    def _batches(self) -> Generator[Ready, None, None]:
        steps = range(self._step, self.num_steps)
        return training_views(
            self.config,
            self.images,
            self.plan,
            steps,
            self.device,
            self.state.method.needs_labels,
            self._meter.timed,
        )

    def _write_metrics(self, log: MetricsLog | None, bar: "tqdm[Any]", late: bool) -> None:
        """Log the means since the last line.

        Args:
            log: Receives them, in the main process.
            bar: Shows the loss.
            late: Whether the last line may wait for the next one, as it does on a GPU, which would
                otherwise idle while its numbers are read. A loss that is not finite is then noticed
                a line later.

        Raises:
            UserError: If a loss is not finite.
        """
        self._readings.append((self._step, self._meter.begin_reading(self._grad_norm)))
        self._grad_norm = {}
        late = late and self.device.type == "cuda" and not self._evaluation_due()
        while len(self._readings) > late:
            step, finish = self._readings.popleft()
            means = finish()
            loss = means["loss"]
            if not math.isfinite(loss):
                raise self.folder.broken(f"the loss is {loss}", step)
            if not math.isfinite(means.get("grad_norm", 0.0)):
                del means["grad_norm"]
            means["epoch"] = step / self.steps_per_epoch
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if log is None:
                continue
            self._collapse.check(step, means["projection_std"])
            if self.evaluate is not None and step == self._step and self._evaluation_due():
                means |= self.evaluate(self.state.method.backbone)
            log.write(step, means)

    def _log_due(self, step: int) -> bool:
        return step % self.config.monitor.log_every_steps == 0

    def _evaluation_due(self) -> bool:
        every = self.config.monitor.knn_every_epochs
        return every is not None and self._step % (every * self.steps_per_epoch) == 0

    def _checkpoint_due(self) -> bool:
        every = self.config.training.checkpoint_every_epochs * self.steps_per_epoch
        return self._step % every == 0 or self._step == self.num_steps

    def _describe(self) -> None:
        config = self.config
        _log.info(
            "%s: %s on %s, %.1f M trainable parameters, %.2f GFLOP a view; %d images, %d steps of "
            "%s (%d an epoch), from step %d, on %s",
            self.folder.path,
            config.method.name,
            config.backbone.name,
            count_parameters(self.state.method) / 1e6,
            gflops_per_image(config.backbone, config.data.image_size),
            len(self.images),
            self.num_steps,
            self.plan,
            self.steps_per_epoch,
            self._step,
            self.device,
        )
