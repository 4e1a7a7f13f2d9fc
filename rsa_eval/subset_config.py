"""Settings of a small part of the training images."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from rsa_pretrain.config_files import Section


class Subset(Section):
    """One way to take few labels; exactly one of its fields is set."""

    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """This share of each class, at least one image of it; in all, the share of the whole."""
    per_class: Annotated[int, Field(ge=1)] | None = None
    """This many images of each class."""
    list_file: Path | None = None
    """The images a text file names, one a line, as NAME or CLASS/NAME (SimCLR's 1percent.txt holds
    lines like n01440764_10026.JPEG)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(value is not None for value in (self.percent, self.per_class, self.list_file)) != 1:
            raise ValueError("a subset takes exactly one of percent, per_class and list_file")
        return self

    @property
    def name(self) -> str:
        """The subset as metrics name it: ``1pct``, ``5per_class``, or the list's file name."""
        if self.list_file is not None:
            return f"list_{self.list_file.stem}"
        return f"{self.per_class}per_class" if self.percent is None else f"{self.percent:g}pct"

    @property
    def is_drawn(self) -> bool:
        """Whether another seed gives other images."""
        return self.list_file is None
