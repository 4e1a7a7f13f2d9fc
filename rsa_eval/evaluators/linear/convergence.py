"""Notice a probe that did not converge, or whose best rate may lie outside those tried."""

import math
from collections.abc import Sequence


def probe_warnings(
    last_loss: float, num_classes: int, chosen: int, rates: Sequence[float]
) -> list[str]:
    """Say what makes a probe's accuracy doubtful; nothing if all is well.

    A step of SGD changes the logits by the rate times the squared norm of the features, so a
    protocol's rate suits features of the scale it was chosen for. On larger ones the classifier
    jumps to and fro until its loss exceeds that of equal probabilities, ln C.

    Args:
        last_loss: The tested head's mean training loss of the last epoch, in nats.
        num_classes: C.
        chosen: Index of the tested head's rate.
        rates: Every ``probe.base_lr``.
    """
    found = []
    if not last_loss <= math.log(num_classes):
        found.append(
            f"the probe did not converge: its last training loss exceeds ln {num_classes}, that of "
            f"guessing, so probe.base_lr {rates[chosen]:g} is too high for features of this scale; "
            "read logistic regression instead"
        )
    if len(rates) > 1 and rates[chosen] in (min(rates), max(rates)):
        end = "highest" if rates[chosen] == max(rates) else "lowest"
        found.append(
            f"the best probe.base_lr of {len(rates)}, {rates[chosen]:g}, is the {end} tried; "
            "another may be better"
        )
    return found
