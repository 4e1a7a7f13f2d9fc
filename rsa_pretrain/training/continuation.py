"""Refuse to continue a saved run with other settings or images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rsa_pretrain.config import (
    RESUMABLE_CHANGES,
    SCHEDULE_SETTINGS,
    PretrainConfig,
    result_changes,
    with_old_orientation,
)
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class Continuation:
    """A way to continue a run: resume or extend."""

    verb: str
    """Its name in errors."""
    may_differ: frozenset[str]
    """Dotted keys of the settings that it may change."""
    remedy: str
    """Advice in the error about a difference."""

    def refuse_other_settings(self, saved: Mapping[str, Any], config: PretrainConfig) -> None:
        """Refuse settings that would change the run's result.

        Args:
            saved: Settings of the run so far, as plain values; it may predate some settings.
            config: Requested settings.

        Raises:
            UserError: If any differ; names each, with both values.
        """
        saved = with_old_orientation(saved)
        before = to_tree(parse_tree(PretrainConfig, saved, "the checkpoint's settings"))
        now = to_tree(config)
        if "extends" in self.may_differ:
            before["extends"] = now["extends"] = None
        changed = result_changes(before, now, self.may_differ)
        if changed:
            raise UserError(
                f"cannot {self.verb} with settings that change the result: {', '.join(changed)}; "
                f"{self.remedy}"
            )

    def refuse_other_images(self, saved: str, fingerprint: str) -> None:
        """Refuse training images whose fingerprint differs from the run's so far.

        Raises:
            UserError: If they differ.
        """
        if saved != fingerprint:
            raise UserError(
                f"cannot {self.verb}: the training images are not those the run started with; "
                f"{self.remedy}"
            )


RESUME = Continuation("resume", RESUMABLE_CHANGES, "restore them or choose another output_dir")
EXTEND = Continuation(
    "extend",
    RESUMABLE_CHANGES | SCHEDULE_SETTINGS | {"extends"},
    "restore them, or train a new run (--extend may change "
    f"{', '.join(sorted(SCHEDULE_SETTINGS))})",
)
