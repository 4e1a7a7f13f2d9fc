"""The robustness of a trained classifier, as an evaluation."""

from dataclasses import dataclass, replace
from pathlib import Path

from rsa_eval.evaluators.robustness.corrupted import CorruptedImages, open_corrupted
from rsa_eval.evaluators.robustness.generated import generate_corrupted
from rsa_eval.evaluators.robustness.grading import Graded, grade
from rsa_eval.evaluators.robustness.heads import TrainedHead, train_head
from rsa_eval.evaluators.robustness.other_images import OtherImages, open_other_images
from rsa_eval.evaluators.robustness.scores import ShiftScores, score_corrupted, score_other
from rsa_eval.evaluators.robustness.settings import RobustnessConfig
from rsa_eval.evaluators.robustness.shifts import GENERATED, Shift, find_shifts
from rsa_eval.evaluators.shared.answers import kept_answers
from rsa_eval.evaluators.shared.labelled_images import (
    accuracies,
    describe_images,
    headline_of,
    open_splits,
)
from rsa_eval.features.frozen import frozen
from rsa_eval.features.subject import Subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_eval.records.record import Metric, Result
from rsa_eval.records.workspace import Workspace
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.settings import DataConfig

ShiftedImages = CorruptedImages | OtherImages

# Of ImageNet-C's files in pixels; at a smaller size they lose much of their noise.
_IMAGENET_C_SIDE = 224


def evaluate_robustness(subject: Subject, config: RobustnessConfig, workspace: Workspace) -> Result:
    """Train a classifier as its own evaluator does, and test it on clean and on shifted images.

    Raises:
        UserError: If the data cannot be used, there are no shifted images, or the training
            diverges.
        Stopped: If a signal stopped the training; the same call resumes it.
    """
    present, absent = find_shifts(config.shifts, config.data.name)
    train, test = open_splits(config)
    num_classes = len(train.class_names)
    opened = _open_shifts(present, subject, config, test)
    with frozen(subject.backbone):
        head = train_head(subject, train, config, workspace)
        examiner = _Examiner(head, config.data, num_classes)
        clean = examiner(test)
        scores = {shift: _score(shift, found, examiner) for shift, found in opened.items()}
    shifted = {name: own for each in scores.values() for name, own in each.metrics.items()}
    kept = {shift.name: own.answers for shift, own in scores.items() if own.answers}
    labels = test.labels_of(range(len(test)))
    predictions = kept_answers(labels, {"": [clean.answers], **kept}, num_classes)
    return Result(
        metrics={
            **accuracies(clean.answers.counts, predictions, headline_of(config.data.name)),
            "ece": Metric(value=clean.calibration.error, unit="%"),
            **shifted,
        },
        headline=next(iter(shifted), "top1"),
        num_samples=len(test),
        details={
            "images": describe_images(train, test),
            **head.details,
            **clean.details(),
            "shifts": {shift.name: own.details for shift, own in scores.items()},
            "left_out": [
                *(f"{name}: {how_to_get}" for name, how_to_get in absent.items()),
                *(text for own in scores.values() for text in own.left_out),
            ],
        },
        predictions=predictions,
        deviations=[
            *head.deviations,
            *(text for own in scores.values() for text in own.deviations),
        ],
        test_keys=test.keys(),
    )


def _open_shifts(
    present: dict[Shift, Path], subject: Subject, config: RobustnessConfig, test: ImageSet
) -> dict[Shift, ShiftedImages]:
    opened: dict[Shift, ShiftedImages] = {}
    if config.shifts.generate:
        squares = evaluation_transform(config.data, subject.mean, subject.std)
        opened[GENERATED] = generate_corrupted(test, squares.geometry, squares.size)
    for shift, folder in present.items():
        if shift.is_corrupted:
            opened[shift] = open_corrupted(shift, folder, test, config.data)
        else:
            opened[shift] = open_other_images(shift, folder, test.class_names, config.data)
    return opened


def _score(shift: Shift, found: ShiftedImages, examiner: "_Examiner") -> ShiftScores:
    if isinstance(found, OtherImages):
        return score_other(shift, found, examiner)
    if shift.form in ("corrupted", "generated"):
        examiner = examiner.of_cropped_images()
    scores = score_corrupted(shift, found, examiner.num_classes, examiner)
    side = examiner.data.image_size
    if shift.form == "corrupted" and side != _IMAGENET_C_SIDE:
        resized = f"{shift.label} resized to {side} px (protocol: {_IMAGENET_C_SIDE})"
        return replace(scores, deviations=[*scores.deviations, resized])
    return scores


@dataclass(frozen=True)
class _Examiner:
    """Grades images by a trained classifier."""

    head: TrainedHead
    data: DataConfig
    num_classes: int

    def __call__(self, images: ImageSet, among: list[int] | None = None) -> Graded:
        return grade(self.head.scores, self.head.features(images, self.data), among)

    def of_cropped_images(self) -> "_Examiner":
        """Return the same for images that are the central squares already, and are not cropped.

        ImageNet-C's files have 224 x 224 pixels, and its authors' test.py takes them as they are.
        Generated corruptions are those of the squares.
        """
        if self.data.eval_resize is None:
            return self
        whole = self.data.model_copy(update={"eval_resize": self.data.image_size})
        return replace(self, data=whole)
