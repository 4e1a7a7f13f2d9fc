"""Propose duplicates by the features of an evaluated checkpoint: each test image's neighbours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsa_eval.audit.entries import NamedRecord
from rsa_eval.audit.near_hashes import RowNumbers
from rsa_eval.config import EvaluationConfig
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.evaluators.shared.memory_plan import budget_on, plan_chunks
from rsa_eval.evaluators.shared.neighbours import nearest_rows
from rsa_eval.features.extract import extract_features
from rsa_eval.features.share import ALONE
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import file_sha256

_NUM_NEIGHBOURS = 5


class Features:
    """Features by the first evaluated checkpoint that is here.

    Args:
        entries: Records; only their checkpoints are used, as features of random weights are close
            to those of the pixels, which are compared anyway.

    Raises:
        UserError: If no checkpoint can be loaded; says why.
    """

    def __init__(self, entries: Sequence[NamedRecord]) -> None:
        reasons: dict[str, None] = {}
        for entry in entries:
            try:
                self._subject, self._config = _load(entry)
            except UserError as error:
                reasons[str(error)] = None
                continue
            self.name = entry.name
            """Name of the record whose checkpoint it is."""
            return
        raise UserError(next(iter(reasons), "no record is of a checkpoint"))

    def neighbours(self, test: ImageSet, bank: ImageSet) -> RowNumbers:
        """Return pairs of each test image with its nearest training images, (P, 2)."""
        asked, known = (
            self._extract(images, label) for images, label in ((test, "test"), (bank, "training"))
        )
        k = min(_NUM_NEIGHBOURS, len(known))
        device = asked.device
        plan = plan_chunks(budget_on(device, None, ALONE), device, len(asked), asked.shape[1], k, 0)
        pairs = []
        for rows, found in nearest_rows(known, asked, k, plan, device, ALONE):
            indices = found.indices.cpu().numpy()
            own = np.repeat(np.arange(rows.start, rows.start + len(indices)), k)
            pairs.append(np.stack([own, indices.reshape(-1)], axis=1))
        return np.concatenate(pairs).astype(np.int64)

    def _extract(self, images: ImageSet, label: str) -> torch.Tensor:
        transform = evaluation_transform(self._config.data, self._subject.mean, self._subject.std)
        title = f"features of {label} images"
        return extract_features(
            self._subject.backbone, images, transform, self._config, title
        ).features


def _load(entry: NamedRecord) -> tuple[Subject, EvaluationConfig]:
    record = entry.record
    path = _checkpoint_of(entry)
    tree: dict[str, Any] = record.config | {"cache_dir": None, "device": "auto"}
    config = parse_tree(EVALUATORS[record.kind].config, tree, f"the settings of '{entry.name}'")
    return load_subject(path, config), config


def _checkpoint_of(entry: NamedRecord) -> Path:
    """Return the evaluated file: at its recorded path, or in the run folder of the record."""
    model = entry.record.model
    if model.checkpoint is None:
        raise UserError("no record is of a checkpoint")
    if model.other_network is not None:
        raise UserError(f"only ResNets of this toolkit are loaded, not {model.other_network}")
    recorded = Path(model.checkpoint)
    here = [path for path in (recorded, entry.path.parent.parent / recorded.name) if path.is_file()]
    if not here:
        raise UserError(f"'{recorded}' is not here")
    for path in here:
        if file_sha256(path) == model.sha256:
            return path
    raise UserError(f"'{here[0]}' is not the evaluated file: its SHA-256 differs")
