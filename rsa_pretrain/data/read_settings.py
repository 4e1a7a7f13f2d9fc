"""Define the settings of reading image files: EXIF orientation and size limit."""

from typing import Annotated

from pydantic import Field

from rsa_pretrain.plumbing.config.files import Section


class ReadRules(Section):
    """Rules for reading image files; the settings of a data set include them."""

    exif_orientation: bool = True
    """Turn each image file by its EXIF orientation, as viewers and annotation tools show it;
    false: the pixels as stored."""
    max_megapixels: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 178.0
    """Image files of more million pixels are refused before decoding: a small file can claim a
    size that fills the memory."""


DEFAULT_RULES = ReadRules()
