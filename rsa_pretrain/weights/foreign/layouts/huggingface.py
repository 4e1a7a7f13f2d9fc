"""Hugging Face ``ResNetModel`` and ``ResNetForImageClassification``."""

from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.plumbing.regular_files import is_there
from rsa_pretrain.plumbing.text_files import read_limited
from rsa_pretrain.weights.files.file_content import FileContent
from rsa_pretrain.weights.foreign.layout import Layout
from rsa_pretrain.weights.foreign.names import TRANSFORMERS

# Settings that the names do not show, with the values of torchvision's ResNet.
EXPECTED_CONFIG = {
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
    "embedding_size": 64,
    "hidden_act": "relu",
    "num_channels": 3,
}


def config_objection(content: FileContent) -> str | None:
    """Return how the ``config.json`` beside the file differs from torchvision's network."""
    path = content.path.with_name("config.json")
    if not is_there(path):
        return None  # transformers' defaults are the expected values
    try:
        config = parse_json(read_limited(path))
    except ValueError:
        return f"'{path}' is not JSON that can be read"
    for key, expected in EXPECTED_CONFIG.items():
        found = config.get(key, expected) if isinstance(config, dict) else None
        if found != expected:
            return f"'{path}' says {key}: {found}, but torchvision's ResNet has {expected}"
    return None


HUGGINGFACE = Layout(
    name="huggingface",
    made_by="Hugging Face transformers",
    source="huggingface/transformers src/transformers/models/resnet/modeling_resnet.py, "
    "configuration_resnet.py (5.23.0)",
    markers=(r"(resnet\.)?embedder\.embedder\.convolution\.",),
    networks={"model": ("", "resnet.")},
    drops={r"classifier\.1\.(weight|bias)$": "classifier"},
    names=TRANSFORMERS,
    objection=config_objection,
)
