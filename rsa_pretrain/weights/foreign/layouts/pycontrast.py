"""PyContrast: InstDis, MoCo, PIRL and InfoMin in one code base."""

from rsa_pretrain.weights.foreign.layout import Layout, Unusable

_SOURCE = (
    "HobbitLong/PyContrast pycontrast/networks/build_backbone.py, "
    "pycontrast/learning/contrast_trainer.py, pycontrast/datasets/util.py (84f94ea)"
)

PYCONTRAST = Layout(
    name="pycontrast",
    made_by="PyContrast: InstDis, MoCo, PIRL, InfoMin",
    source=_SOURCE,
    markers=(r"model/encoder\.conv1\.", r"model/head\."),
    networks={
        "model": ("model/encoder.",),
        "model_ema": ("model_ema/encoder.",),
    },
    drops={
        r"model(_ema)?/head(_jig)?\.": "projection head",
        r"contrast/": "memory of the loss",
    },
)

CMC = Unusable(
    name="pycontrast CMC",
    source=_SOURCE,
    markers=(r"model/encoder1\.conv1\.", r"model/encoder2\.conv1\."),
    why="CMC trains two half-width networks, one on luminance and one on chrominance of "
    "YDbDr images; neither is a ResNet of RGB images",
)
