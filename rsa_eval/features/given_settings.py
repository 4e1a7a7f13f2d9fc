"""Settings common to the evaluations of features that were extracted elsewhere."""

from typing import Annotated

from pydantic import Field

from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.plumbing.device_names import DeviceName

MOST_CLASSES = 2**20
"""Labels are class indices, not names of images: a larger one is taken for a mistake."""


class GivenFeaturesConfig(Section):
    """Settings common to all evaluators of given features, in place of images and network."""

    protocol: str
    """The published protocol this run follows; the record lists departures from it."""
    data_set: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
    """Name of the data set in records and tables. By default the training file's, without its
    ending; records are compared only under the same name."""
    num_classes: Annotated[int, Field(ge=2, le=MOST_CLASSES)] | None = None
    """Number of classes, of which some may have no image. null: the largest training label plus
    one."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds a probe's initialisation and data order, and the choice of held-out images."""
    device: DeviceName = "auto"
    """auto: a GPU if there is one."""
