"""Load detection engines: one folder per library, which alone imports that library's detectors."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import detection.engines.foreign_warnings  # noqa: F401  # before any engine's library
from detection.coco.evaluation import Prediction
from detection.job.job import Job
from detection.recipe.recipe import EngineName
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import missing_extra
from rsa_pretrain.plumbing.stop_signal import StopSignal

ENGINES: dict[EngineName, str] = {
    "torchvision": "detection.engines.torchvision",
    "detectron2": "detection.engines.detectron2",
}


class Engine(Protocol):
    """Interface of the modules in ``ENGINES``."""

    DIFFERENCES_FROM_DETECTRON2: tuple[str, ...]
    """Differences from detectron2 that affect results; every record quotes them."""

    BEST_FILE: Path
    """Path of the best weights in a run folder; no checkpoint has such a name."""

    def check(self, job: Job) -> None:
        """Refuse a job that the engine cannot train, before anything is written."""

    def train(self, job: Job, run_dir: Path, resume_from: Path | None, stop: StopSignal) -> Any:
        """Fine-tune to the end of the schedule, or to a stop signal; return the detector."""

    def predict(self, detector: Any, job: Job) -> list[Prediction]:
        """Detect in every test image once; the main process receives all detections."""

    def save_weights(
        self, detector: Any, job: Job, step: int, file: Path, notes: dict[str, str]
    ) -> None:
        """Write the weights alone after ``step`` iterations, atomically, with notes."""


def load_engine(name: EngineName) -> Engine:
    """Import the module of an engine.

    Raises:
        UserError: If its library is not installed, or is broken.
    """
    if name == "detectron2" and find_spec("detectron2") is None:
        raise UserError(
            "engine detectron2 needs detectron2, which is not installed and not on PyPI: "
            "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2; "
            "engine=torchvision trains the same recipe without it"
        )
    try:
        return cast(Engine, import_module(ENGINES[name]))
    except (ImportError, AttributeError) as error:
        if missing_extra(error):
            raise
        raise UserError(
            f"engine {name} cannot be imported ({error}); repair its installation"
        ) from None
