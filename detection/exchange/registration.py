"""Write the lines by which detectron2's own programs get to know a recipe's images."""

from collections.abc import Iterable

from detection.coco.data_settings import (
    VOC_CLASSES,
    CocoDataConfig,
    DetectionData,
    SetRole,
    VocDataConfig,
)
from detection.exchange.config import data_set_names

# Years whose rule of AP detectron2 knows, and the sets that it registers itself, as voc_YEAR_SET.
_KNOWN_YEARS = ("2007", "2012")
_KNOWN_SETS = {
    f"{year}/{part}" for year in _KNOWN_YEARS for part in ("train", "val", "trainval")
} | {"2007/test"}


def registration(data: DetectionData) -> str:
    """Return the lines, with what is to be known about them."""
    return _of_coco(data) if isinstance(data, CocoDataConfig) else _of_voc(data)


def _of_coco(data: CocoDataConfig) -> str:
    (train,), (test,) = data_set_names(data, "train"), data_set_names(data, "test")
    places = {
        train: (data.train_annotations, data.train_images),
        test: (data.test_annotations, data.test_images),
    }
    lines = [
        f"  register_coco_instances({name!r}, {{}}, {str(annotations)!r}, {str(images)!r})"
        for name, (annotations, images) in places.items()
    ]
    return f"""\
  from detectron2.data.datasets import register_coco_instances
{_joined(lines)}

or, for COCO itself below $DETECTRON2_DATASETS, end the command with

  DATASETS.TRAIN '("coco_2017_train",)' DATASETS.TEST '("coco_2017_val",)'

Its evaluation counts an annotation of id 0 as never found: number test annotations from 1."""


def _of_voc(data: VocDataConfig) -> str:
    # A set may be of both roles, and can be registered once.
    lines = dict.fromkeys((*_voc_lines(data, "train"), *_voc_lines(data, "test")))
    text = f"""\
  from detectron2.data import MetadataCatalog
  from detectron2.data.datasets import register_pascal_voc
{_joined(lines)}
"""
    if data.classes == VOC_CLASSES and {*data.train, *data.test} <= _KNOWN_SETS:
        text += f"""
or, for VOC itself below $DETECTRON2_DATASETS, end the command with

  DATASETS.TRAIN '{_known(data.train)}' DATASETS.TEST '{_known(data.test)}'
"""
    if len(data.test) > 1:
        text += """
It evaluates each test set apart; here they are one.
"""
    return f"""{text}
Its AP, AP50 and AP75 are of VOC2007's eleven recalls on year 2007, else areas; COCO's AP of the
same detections is another number."""


def _voc_lines(data: VocDataConfig, role: SetRole) -> list[str]:
    lines = []
    for name, registered in zip(data.sets_of(role), data_set_names(data, role), strict=True):
        year, _, image_set = name.partition("/")
        known = int(year) if year in _KNOWN_YEARS else 2012
        arguments = (registered, str(data.root / f"VOC{year}"), image_set, known)
        classes = "" if data.classes == VOC_CLASSES else f", {list(data.classes)!r}"
        lines.append(f"  register_pascal_voc({', '.join(map(repr, arguments))}{classes})")
        lines.append(f"  MetadataCatalog.get({registered!r}).evaluator_type = 'pascal_voc'")
    return lines


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _known(names: tuple[str, ...]) -> str:
    registered = ", ".join(f'"voc_{name.replace("/", "_")}"' for name in names)
    return f"({registered},)"
