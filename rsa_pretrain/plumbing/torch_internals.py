"""Name the parts of torch that have no public name, all in one place.

Whatever a release of torch renames among them is mended here.
"""

import torch
from torch._C._autograd import DeviceType, _profiler_enabled

__all__ = [
    "DeviceType",
    "foreach_add",
    "foreach_add_",
    "foreach_lerp_",
    "foreach_mul",
    "foreach_mul_",
    "foreach_norm",
    "profiler_enabled",
]

foreach_add = torch._foreach_add
foreach_add_ = torch._foreach_add_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul = torch._foreach_mul
foreach_mul_ = torch._foreach_mul_
foreach_norm = torch._foreach_norm
profiler_enabled = _profiler_enabled
