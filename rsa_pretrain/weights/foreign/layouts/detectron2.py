"""detectron2's ResNets, alone or in a detector.

Names do not show colour order or stride placement; only the author of the file does.
"""

import json
from dataclasses import replace

from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.foreign.layout import IMAGENET_PIXELS, Layout, Pixels, Unusable
from rsa_pretrain.weights.foreign.names import C4_DETECTOR
from rsa_pretrain.weights.foreign.names import DETECTRON2 as NAMES
from rsa_pretrain.weights.metadata import METADATA_KEY, BackboneMetadata

TOOLKIT = "rsa-toolkit"
"""Author of this toolkit's detectron2 files."""
HEADS = "detection heads"
"""Why tensors are dropped that make a file a trained detector's."""
# Converters of networks with stride in the 3x3 convolution and RGB input. detectron2's own
# ResNets (MSRA's) have BGR input in 0–255 and the stride in the first 1x1 convolution.
_RGB_AUTHORS = ("torchvision", "MOCO", "Yonglong", "OpenSelfSup", TOOLKIT)


def author_objection(content: FileContent) -> str | None:
    """Return why colour order and stride are unknown, unless the author's are known."""
    author = content.values.get("__author__")
    if author in _RGB_AUTHORS or toolkit_metadata(content) is not None:
        return None
    return (
        f"its author is {author!r}: colour order and stride placement are not in the file, and "
        "detectron2's own ResNets take BGR and stride in their 1x1 convolutions; convert the "
        f"original weights with a converter that signs as {', '.join(_RGB_AUTHORS[:-1])}; or "
        "take them, with the config that detectron2 wrote beside them, by rsa-detect unconvert"
    )


def toolkit_metadata(content: FileContent) -> BackboneMetadata | None:
    """Return this toolkit's metadata in its detectron2 files: converted ones, and its runs'."""
    path = f"{METADATA_KEY}/metadata"
    kept = content.values.get(path)
    if not isinstance(kept, str):
        return None
    try:
        return parse_tree(BackboneMetadata, json.loads(kept), path)
    except (ValueError, RecursionError):
        return None


def pixels_of_toolkit(content: FileContent) -> Pixels | None:
    """Return the pixel statistics that this toolkit stored in the file."""
    metadata = toolkit_metadata(content)
    return None if metadata is None else Pixels(metadata.mean, metadata.std)


def counts_of_toolkit(content: FileContent) -> dict[str, int]:
    """Return the batch counts that ``rsa-detect convert`` stored in the file."""
    folder = f"{METADATA_KEY}/num_batches_tracked/"
    return {
        path.removeprefix(folder): value
        for path, value in content.values.items()
        if path.startswith(folder) and type(value) is int
    }


DETECTRON2 = Layout(
    name="detectron2",
    made_by="detectron2's converters from PyTorch, rsa-detect convert and its detectron2 runs",
    source="facebookresearch/detectron2 tools/convert-torchvision-to-d2.py (1d650ef); "
    "facebookresearch/moco detection/convert-pretrain-to-detectron2.py (132aea9); "
    "HobbitLong/PyContrast pycontrast/detection/convert_pretrained.py (84f94ea)",
    markers=(r"model/(backbone\.bottom_up\.)?stem\.conv1\.weight",),
    networks={"trunk": ("model/backbone.bottom_up.", "model/")},
    drops={
        r"model/stem\.fc\.": "classifier",
        r"model/backbone\.(fpn_|top_block\.)": "feature pyramid",
        r"model/(proposal_generator|roi_heads)\.": HEADS,
        r"model/pixel_(mean|std)$": "pixel statistics",
        r"(trainer|optimizer|scheduler)/": "trainer state",
    },
    names=NAMES,
    pixels=IMAGENET_PIXELS,
    objection=author_objection,
    stated_pixels=pixels_of_toolkit,
    batch_counts=counts_of_toolkit,
)

DETECTRON2_C4 = replace(
    DETECTRON2,
    name="detectron2_c4",
    made_by="rsa-detect convert --features C4 and detectors on C4 of detectron2 runs",
    source="facebookresearch/detectron2 detectron2/modeling/roi_heads/roi_heads.py (02b5c4e)",
    markers=(r"model/backbone\.stem\.conv1\.weight", r"model/roi_heads\.res5\."),
    networks={"trunk": ("model/",)},
    drops={
        r"model/proposal_generator\.": HEADS,
        r"model/roi_heads\.(box_predictor|mask_head|res5\.norm)\.": HEADS,
        r"model/pixel_(mean|std)$": "pixel statistics",
        r"(trainer|optimizer|scheduler)/": "trainer state",
    },
    names=C4_DETECTOR,
)

CAFFE2 = Unusable(
    name="Caffe2 (MSRA) ResNet",
    source="facebookresearch/detectron2 detectron2/checkpoint/c2_model_loading.py",
    markers=(r"((model|blobs)/)?res2_0_branch2a_w$",),
    why="it takes BGR, strides in its 1x1 convolutions and has its BatchNorm statistics folded "
    "away, so it is another network than torchvision's",
)
