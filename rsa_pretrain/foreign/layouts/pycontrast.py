"""PyContrast: InstDis, MoCo, PIRL and InfoMin by one code base."""

from rsa_pretrain.foreign.layout import Layout, Unusable

_SOURCE = (
    "HobbitLong/PyContrast pycontrast/networks/build_backbone.py, "
    "pycontrast/learning/contrast_trainer.py, pycontrast/datasets/util.py (84f94ea)"
)

PYCONTRAST = Layout(
    name="pycontrast",
    made_by="PyContrast: InstDis, MoCo, PIRL, InfoMin",
    source=_SOURCE,
    markers=(r"model/(module\.)?encoder\.conv1\.", r"model/(module\.)?head\."),
    networks={
        "model": ("model/module.encoder.", "model/encoder."),
        "model_ema": ("model_ema/module.encoder.", "model_ema/encoder."),
    },
    drops={
        r"model(_ema)?/(module\.)?head(_jig)?\.": "projection head",
        r"contrast/": "memory of the loss",
        r"(optimizer|amp)/": "optimizer state",
    },
)

CMC = Unusable(
    name="pycontrast CMC",
    source=_SOURCE,
    markers=(r"model/(module\.)?encoder1\.conv1\.", r"model/(module\.)?encoder2\.conv1\."),
    why="CMC trains two half-width networks, one on luminance and one on chrominance of "
    "YDbDr images; neither is a ResNet of RGB images",
)
