"""Where imported weights come from, kept beside them."""

from pydantic import Field

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
    """Batch counts the file did not hold, or not as finite numbers, set to 0."""
    converted: dict[str, int] = Field(default_factory=dict)
    """Element types in the file that are not the network's → tensors turned into it."""
    wrappers: tuple[str, ...] = ()
    """Names of wrapper classes that were taken off the tensors' names."""
    pixels: str
    """Whose mean and std these are."""
    non_finite: list[str]
    """Tensors with NaN or infinity, which the import was told to allow."""
    source: str
    """Where the layout's names were read."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Objects in the file that are neither tensors nor plain values → how many."""
    proof: tuple[str, ...] = ()
    """What was compared with the project's own library, and what was found; a sentence each."""

    def changes(self) -> list[str]:
        """Say in a line each what was made of the file's tensors before they were taken."""
        lines = [
            f"converted {count} {kind} tensors to the network's float32 and int64"
            for kind, count in self.converted.items()
        ]
        if self.filled:
            lines.append(
                f"filled    {len(self.filled)} batch counts that the file does not hold, with 0"
            )
        return lines
