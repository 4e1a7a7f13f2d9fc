"""Define the settings that select a sample's image and label among the members of a tar."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from rsa_pretrain.plumbing.config.files import Section


def _bare(suffix: str) -> str:
    return suffix.removeprefix(".").lower()


Suffix = Annotated[str, Field(pattern=r"^\.?[^./\s]+(\.[^./\s]+)*$"), AfterValidator(_bare)]


class SampleRules(Section):
    """Rules for the members of one sample in a tar; the settings of a data set include them."""

    image_suffix: Suffix | None = None
    """webdataset: of several images in a sample, use the one whose name ends so (`input.jpg`);
    null: the one that is KEY.jpg, KEY.png, …, else the only one."""
    label_suffix: Suffix | None = None
    """webdataset: the class, a number or a name, is in the member whose name ends so (`txt`,
    `target.cls`); null: cls, or json if `label_key` is set."""
    label_key: str | None = None
    """webdataset: the class is the value of this key in the sample's JSON member; null: no JSON is
    read."""
    dotted_keys: bool = False
    """webdataset: a sample's key is its name up to the last dot, so that photo.1.jpg and
    photo.2.jpg are two samples; false: up to the first dot, as in the webdataset library."""

    @model_validator(mode="after")
    def _check_label(self) -> Self:
        suffix = self.label_suffix
        if suffix is not None and suffix.endswith("json") and self.label_key is None:
            raise ValueError(f"data.label_suffix={suffix} needs data.label_key")
        return self


DEFAULT_SAMPLES = SampleRules()


def sample_rules(settings: SampleRules) -> SampleRules:
    """Return only the rules of settings that contain more, so that equal rules compare equal."""
    return SampleRules(**{name: getattr(settings, name) for name in SampleRules.model_fields})
