"""Warnings to the makers of fvcore and detectron2, which no user of theirs can heed.

Each is named, so that a new one is seen. Imported before either library.
"""

import logging
import warnings

for _message, _category in (
    # fvcore and detectron2 compile functions when they are imported.
    (r"`torch\.jit\.script` is deprecated", FutureWarning),
    # detectron2's anchors.
    (r"torch\.meshgrid: in an upcoming release", UserWarning),
):
    warnings.filterwarnings("ignore", _message, _category)

# detectron2 asks by a name that is to mean something narrower; nothing is traced here.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
