"""Select the objects that evaluation counts."""

from collections.abc import Mapping
from typing import Any


def is_difficult(annotation: Mapping[str, Any]) -> bool:
    """Return whether an object is marked difficult, as PASCAL VOC does: evaluation skips it."""
    return annotation.get("difficult", 0) == 1 and not annotation.get("iscrowd", 0)


def is_counted(annotation: Mapping[str, Any]) -> bool:
    """Return whether an object can be missed: it is neither a crowd nor marked difficult."""
    return not annotation.get("iscrowd", 0) and not is_difficult(annotation)


def counted_objects(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the annotations of a file's content that can be missed."""
    return [entry for entry in tree["annotations"] if is_counted(entry)]
