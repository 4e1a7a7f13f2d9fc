"""The choices a user has in how image files are read; the rest is the same for all."""

from typing import Annotated

from pydantic import Field

from rsa_pretrain.plumbing.config.files import Section


class ReadRules(Section):
    """How image files are read; the settings of a data set are such rules, too."""

    exif_orientation: bool = True
    """Turn each image file as its EXIF orientation says, as viewers and annotation tools show it;
    false: the pixels as they are stored."""
    max_megapixels: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 178.0
    """Image files of more million pixels are refused before they are decoded: a small file can
    claim a size that fills the memory."""


DEFAULT_RULES = ReadRules()
