"""Measure the memory of extraction for test_feature_cache.py: ``extraction_peak.py FOLDER``.

Writes the peak memory before and after, and the size of the file, in bytes.
"""

import resource
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.extract import stored_features
from rsa_eval.features.subject import Subject
from rsa_eval.records.record import describe_random_init
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import parse_tree

WIDTH = 16384


class LastBlock(nn.Module):
    """Three channels to many, with the BatchNorm that tells the width of a stage."""

    def __init__(self):
        super().__init__()
        self.bn2 = nn.BatchNorm2d(WIDTH)

    def forward(self, images):
        """Repeat the channels."""
        return images[:, :1, :1, :1].expand(-1, WIDTH, 1, 1) + self.bn2.bias.view(-1, 1, 1)


def wide_network():
    """A network of a ResNet's parts that does almost nothing."""
    network = nn.Module()
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        network.add_module(name, nn.Identity())
    network.add_module("layer4", nn.Sequential(LastBlock()))
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    return network.eval()


def main(folder):
    """Extract the features of a few images, then of many."""
    torch.set_num_threads(1)
    tree = {"data": {"name": "digits", "image_size": 8, "num_workers": 0}, "batch_size": 64}
    tree |= {"protocol": "test", "cache_dir": str(folder), "device": "cpu"}
    config = parse_tree(EvaluationConfig, tree, "test")
    network = BackboneConfig(arch="resnet18", stem="standard")
    subject = Subject(wide_network(), (0.5,) * 3, (0.5,) * 3, describe_random_init(network))
    peaks = []
    for count in (128, 5000):
        pixels = np.zeros((count, 8, 8, 3), np.uint8)
        images = ImageSet.from_array("zeros", pixels, [0] * count, ["zero"])
        features = stored_features(subject, images, config, "test").features
        assert features.shape == (count, WIDTH)
        peaks.append(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    sys.stdout.write(f"{peaks[0]} {peaks[1]} {features.nbytes}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
