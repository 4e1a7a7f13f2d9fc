"""Make fvcore's precise BN accept norms that see nothing of a batch.

The mask head's norms see only regions with an object; a batch of images without objects has none,
and fvcore divides by their number. Both engines average statistics through fvcore, detectron2 in
its own hook, so the class is replaced in place.
"""

from fvcore.nn import precise_bn
from torch import Tensor

update_bn_stats = precise_bn.update_bn_stats


class SeenBatches(precise_bn._PopulationVarianceEstimator):  # type: ignore[misc]  # fvcore has none
    """Averages the batches that a norm saw; if there were none, keeps its statistics."""

    def __init__(self, mean_buffer: Tensor, var_buffer: Tensor) -> None:
        super().__init__(mean_buffer, var_buffer)
        self._before = mean_buffer.clone(), var_buffer.clone()
        self.pop_mean: Tensor = self._before[0]

    def update(self, batch_mean: Tensor, batch_var: Tensor, batch_size: int) -> None:
        """Add a batch's statistics, weighted by how much was seen."""
        if batch_size == 0:
            return
        if self.tot == 0:
            self.pop_mean = batch_mean.new_zeros(batch_mean.shape)
        super().update(batch_mean, batch_var, batch_size)

    @property
    def pop_var(self) -> Tensor:
        """Variance over all that was seen."""
        variance: Tensor = self._before[1] if self.tot == 0 else super().pop_var
        return variance


precise_bn._PopulationVarianceEstimator = SeenBatches
