"""One module per data set: what its files must look like, and how they are opened.

Each has ``open_split(config, split)``, which raises ``UserError`` with what to download, from where
and the expected layout if the files are not there.
"""

from typing import Literal

Split = Literal["train", "test"]
# STL-10 pretrains on more images than it has labels for; elsewhere this is the training split.
AnySplit = Literal["pretrain", "train", "test"]
