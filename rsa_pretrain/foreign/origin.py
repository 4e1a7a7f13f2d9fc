"""Where imported weights come from, kept beside them."""

from rsa_pretrain.config_files import Section


class Origin(Section):
    """Where imported weights come from: another project's file, and what was taken of it."""

    file: str
    """Name of the file; its SHA-256 is the metadata's ``parent``."""
    layout: str
    """How it was read."""
    recognised: str
    """How sure that layout is, and why."""
    network: str
    """Which of its networks was taken."""
    prefix: str
    """What stood before the tensors' names."""
    num_taken: int
    """Tensors taken."""
    dropped: dict[str, int]
    """What was not taken → how many tensors."""
    filled: list[str]
    """Batch counts the file did not hold, set to 0."""
    pixels: str
    """Whose mean and std these are."""
    non_finite: list[str]
    """Tensors with NaN or infinity, which the import was told to allow."""
    source: str
    """Where the layout's names were read."""
    proof: tuple[str, ...] = ()
    """What was compared with the project's own library, and what was found; a sentence each."""
