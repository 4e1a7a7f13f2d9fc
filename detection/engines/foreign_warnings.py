"""Silence warnings addressed to the developers of fvcore and detectron2.

Each is listed, so that new ones still show. Must be imported before either library.
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

# detectron2 uses a name whose meaning is to become narrower; nothing is traced here.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
