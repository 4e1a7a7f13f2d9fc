"""Files that the libraries themselves write, where they are installed."""

import json

import pytest
import torch
from torch import nn

from detection.exchange.convert import convert
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.export.targets.base import probe_images
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights
from rsa_pretrain.weights.load import load_weights


def features(module):
    """Features of two images in eval mode."""
    with torch.inference_mode():
        return module.eval()(probe_images())


def moved(module):
    """Move the BatchNorm statistics off their start."""
    for tensor in module.buffers():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return module


def test_torchvision(tmp_path):
    """A torchvision network's state dict gives its features, without the classifier."""
    torchvision = pytest.importorskip("torchvision")
    model = moved(torchvision.models.resnet18())
    torch.save(model.state_dict(), tmp_path / "x.pth")
    loaded = load_weights(tmp_path / "x.pth")
    model.fc = nn.Identity()
    assert torch.equal(features(loaded.backbone), features(model))
    assert loaded.metadata.origin.dropped == {"classifier": 2}


def test_timm(tmp_path):
    """A timm network saved as timm's hub files are gives its features."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from safetensors.torch import save_file

    model = moved(timm.create_model("resnet18", pretrained=False))
    save_file(model.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_weights(tmp_path / "model.safetensors")
    model.reset_classifier(0)
    torch.testing.assert_close(features(loaded.backbone), features(model))


@pytest.fixture
def hub_folder(tmp_path):
    """A ResNetForImageClassification as transformers saves it, and its network."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ResNetConfig(
        layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2]
    )
    model = moved(transformers.ResNetForImageClassification(config))
    model.save_pretrained(tmp_path)
    return tmp_path, model.eval()


def test_transformers(hub_folder):
    """A Hugging Face folder's weights give the pooled output of ResNetModel."""
    folder, model = hub_folder
    loaded = load_weights(folder / "model.safetensors")
    with torch.inference_mode():
        wanted = model.resnet(pixel_values=probe_images()).pooler_output.flatten(1)
    torch.testing.assert_close(features(loaded.backbone), wanted)
    assert loaded.metadata.origin.layout == "huggingface"


def test_another_stride_in_transformers_is_refused(hub_folder):
    """The config beside the weights says where the stride is; the names do not."""
    folder, _ = hub_folder
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"downsample_in_bottleneck": True}))
    with pytest.raises(UserError, match="says downsample_in_bottleneck: True, but torchvision's"):
        load_weights(folder / "model.safetensors")
    path.write_text("{")
    with pytest.raises(UserError, match=r"config\.json' is not JSON"):
        load_weights(folder / "model.safetensors")


def lightning_checkpoint(module, path):
    """Save as Lightning's trainer does."""
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


@pytest.mark.filterwarnings("ignore")  # Lightning's own deprecations
def test_lightly(tmp_path):
    """A Lightning checkpoint of lightly's modules gives the online or the momentum network."""
    lightly = pytest.importorskip("lightly.models.modules", reason="lightly is not installed")
    import pytorch_lightning
    import torchvision

    class Example(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.backbone_momentum = (
                moved(nn.Sequential(*list(torchvision.models.resnet18().children())[:-1]))
                for _ in range(2)
            )
            self.projection_head = lightly.MoCoProjectionHead(512, 512, 128)

    class Benchmark(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone = moved(torchvision.models.resnet18())
            self.backbone.fc = nn.Identity()
            self.projection_head = lightly.BYOLProjectionHead(512, 1024, 256)
            self.prediction_head = lightly.BYOLPredictionHead(256, 1024, 256)

    for module, layout, network in (
        (Example(), "lightly_example", "backbone"),
        (Example(), "lightly_example", "momentum"),
        (Benchmark(), "lightly", "backbone"),
    ):
        lightning_checkpoint(module, tmp_path / "x.ckpt")
        loaded = import_weights(tmp_path / "x.ckpt", ImportOptions(network=network))
        assert loaded.metadata.origin.layout == layout
        taken = module.backbone if network == "backbone" else module.backbone_momentum
        assert torch.equal(features(loaded.backbone), features(taken).flatten(1))


@pytest.mark.filterwarnings("ignore")  # Lightning's own deprecations
def test_lightly_without_its_first_relu_is_refused(tmp_path):
    """The CIFAR network of lightly, cut into a Sequential, is no longer a ResNet."""
    lightly = pytest.importorskip("lightly.models", reason="lightly is not installed")
    import pytorch_lightning

    module = pytorch_lightning.LightningModule()
    resnet = lightly.ResNetGenerator("resnet-18")
    module.backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1))
    lightning_checkpoint(module, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="has no ReLU after the first convolution"):
        load_weights(tmp_path / "x.ckpt")
    images = probe_images()
    with torch.inference_mode():
        stem = resnet.eval().bn1(resnet.conv1(images))
    assert stem.min() < 0, "the children alone let negative values through"


def test_detectron2_weights_of_this_toolkit(own_backbone, network, tmp_path):
    """A file of rsa-detect convert is restored in full, batch counts and statistics included."""
    loaded = own_backbone()
    convert(loaded.path, tmp_path / "x.pkl")
    again = load_weights(tmp_path / "x.pkl")
    assert again.metadata.origin.layout == "detectron2"
    assert Pixels(again.metadata.mean, again.metadata.std) == Pixels(
        loaded.metadata.mean, loaded.metadata.std
    )
    for name, tensor in network(3).items():
        assert torch.equal(again.backbone.state_dict()[name], tensor), name


@pytest.mark.parametrize("author", [None, "Caffe2", "someone"])
def test_detectron2_weights_of_unknown_colour_order_are_refused(example, author):
    """Colour order and stride are in no name: without a known author they are not guessed."""
    from rsa_pretrain.weights.foreign.recognise import recognise

    made = example("detectron2")
    made.tree["__author__"] = author
    with pytest.raises(UserError, match="colour order and stride placement are not in the file"):
        recognise(made.content())
