from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from rsa_eval import extract
from rsa_eval.__main__ import main
from rsa_eval.evaluators.finetune.tuning import Classifier
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.extract import cache_entry, extract_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.networks.load import load_network
from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_eval.features.subject import load_subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_eval.records.record import read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.errors import UserError

DIGITS = ["data.name=digits", "data.image_size=32", "data.num_workers=0", "device=cpu"]
DIGITS += ["data.num_train_images=60", "data.num_test_images=30"]
Write = Callable[[str], Path]


def test_a_function_s_network_is_evaluated(write_module: Write, tmp_path: Path) -> None:
    """From the current folder, as one record that names it."""
    write_module("")
    assert main(["knn", "python:mine:make", "--out", "record.json", *DIGITS]) == 0
    record = read_record(tmp_path / "record.json")
    assert record.model.checkpoint == record.model.other_network == "python:mine:make"
    assert record.model.sha256 is not None
    assert not record.model.is_random


def test_features_are_the_module_s_of_normalised_images(
    write_module: Write, settings: Callable[..., KNNConfig]
) -> None:
    """The mean colours of the pixels, under the function's mean and std."""
    write_module("")
    config = settings()
    subject = load_subject("python:mine:make", config)
    images = open_images(config.data, "test")
    transform = evaluation_transform(config.data, subject.mean, subject.std)
    with frozen(subject.backbone):
        found = extract_features(subject.backbone, images, transform, config, "")
    expected = torch.stack([transform(image).mean(dim=(1, 2)) for image in images])
    torch.testing.assert_close(found.features, expected)
    assert (subject.mean, subject.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


TOKENS = """
class Tokens(nn.Module):
    def forward(self, images):
        return images.flatten(2).mT.contiguous()


class Maps(nn.Module):
    def forward(self, images):
        return images[:, :2]


def tokens():
    return Tokens(), Preprocessing(mean=INPUT.mean, std=INPUT.std, num_prefix_tokens=2)


def bare():
    return Tokens(), INPUT


def maps():
    return Maps(), INPUT
"""


def test_tokens_and_maps_are_pooled_as_stated(write_module: Write) -> None:
    """The first token, the mean of those after the prefix, and both; a map's mean."""
    write_module(TOKENS)
    images = torch.randn(2, 3, 8, 8)
    rows = images.flatten(2).mT
    expected: dict[Any, torch.Tensor] = {
        "cls": rows[:, 0],
        "mean": rows[:, 2:].mean(dim=1),
        "cls+mean": torch.cat([rows[:, 0], rows[:, 2:].mean(dim=1)], dim=1),
    }
    for tokens, features in expected.items():
        loaded = load_network("python:mine:tokens", 8, tokens=tokens)
        torch.testing.assert_close(loaded.backbone(images), features)
    loaded = load_network("python:mine:maps", 8, tokens="mean")
    torch.testing.assert_close(loaded.backbone(images), images[:, :2].mean(dim=(2, 3)))
    for function, tokens, message in (
        (
            "tokens",
            "default",
            r"returned shape \(2, 64, 3\), expected features \(N, D\); set tokens",
        ),
        ("maps", "cls", "has no class token, so tokens=cls .* cannot be taken; set tokens=mean$"),
        ("bare", "cls", r"set tokens=mean, or return Preprocessing\(num_prefix_tokens=1\) if"),
        ("make", "mean", r"returns features \(N, D\), not tokens"),
    ):
        with pytest.raises(UserError, match=message):
            load_network(f"python:mine:{function}", 8, tokens=tokens)
    with pytest.raises(UserError, match="returns the output of one block, so tokens=cls blocks=2"):
        load_network("python:mine:tokens", 8, tokens="cls", blocks=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tokens": "patches"},
            "tokens is 'patches', expected one of default, cls, mean",
        ),
        ({"tokens": "cls", "blocks": 0}, "blocks is 0, expected a count from 1 on"),
        ({"tokens": "cls", "blocks": 1.5}, "blocks is 1.5, expected a count from 1 on"),
        ({"blocks": 2}, "blocks needs tokens=cls, tokens=mean or tokens=cls.mean"),
    ],
)
def test_token_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    """In Python as in a config, where ``blocks=0`` would be all of a network's."""
    with pytest.raises(UserError, match=message):
        load_network("python:mine:tokens", 8, **settings)


def test_networks_without_tensors_have_their_own_cache(
    write_module: Write, settings: Callable[..., KNNConfig], tmp_path: Path
) -> None:
    """By function, by code and by token settings; code that would not run is refused."""

    def entry(spec: str, **changes: Any) -> Path:
        config = settings(**changes)
        images = open_images(config.data, "test")
        return cache_entry(load_subject(spec, config), images, config, tmp_path).path

    write_module(TOKENS + "\nother = make\n")
    paths = [entry("python:mine:make"), entry("python:mine:other")]
    paths += [entry("python:mine:tokens", tokens=tokens) for tokens in ("cls", "mean")]
    assert entry("python:mine:make") == paths[0]
    path = write_module(TOKENS + "\nother = make  # changed\n")
    paths.append(entry("python:mine:make"))
    assert len(set(paths)) == 5
    path.write_text(path.read_text() + "\nanother = make\n")
    with pytest.raises(UserError, match=r"mine\.py' changed since Python imported it"):
        entry("python:mine:make")


def test_tensors_that_checkpoints_leave_out_are_part_of_the_identity(
    write_module: Write, settings: Callable[..., KNNConfig], tmp_path: Path
) -> None:
    """A buffer that is not persistent decides features like any other."""
    write_module(
        "def scaled():\n"
        "    network = Colours()\n"
        "    network.register_buffer('scale', torch.load('scale.pt'), persistent=False)\n"
        "    return network, INPUT\n"
    )
    found = set()
    config = settings()
    images = open_images(config.data, "test")
    for scale in (1.0, 2.0, 1.0):
        torch.save(torch.tensor(scale), "scale.pt")
        subject = load_subject("python:mine:scaled", config)
        found.add((subject.model.sha256, cache_entry(subject, images, config, tmp_path).path))
    assert len(found) == 2


BAD = {
    "missing": "",
    "a_number": "a_number = 3",
    "raises": "def raises():\n    raise KeyError('weights.pth')",
    "leaves": "def leaves():\n    raise SystemExit(0)",
    "wants": "def wants(path):\n    return make()",
    "alone": "def alone():\n    return Colours()",
    "three": "def three():\n    return Colours(), INPUT, 3",
    "no_module": "def no_module():\n    return (lambda images: images), INPUT",
    "no_input": "def no_input():\n    return Colours(), (0.5, 0.5, 0.5)",
    "bad_input": "def bad_input():\n    return Colours(), Preprocessing((1, 2), (1, 1, 1))",
    "one_size": """
def one_size():
    return Colours(), Preprocessing(INPUT.mean, INPUT.std, image_size=224)
""",
}
MESSAGES = {
    "missing": r"module 'mine' \(.*mine\.py\) has no function 'missing'",
    "a_number": "has no function 'a_number'",
    "raises": "python:mine:raises raised KeyError: 'weights.pth'",
    "leaves": "python:mine:leaves raised SystemExit: 0",
    "wants": "python:mine:wants raised TypeError: .*missing 1 required positional argument: 'path'",
    "alone": r"python:mine:alone returned Colours; expected \(module, rsa_eval\.Preprocessing",
    "three": r"python:mine:three returned tuple of 3; expected \(module",
    "no_module": r"python:mine:no_module returned \(function, Preprocessing\); expected \(module",
    "no_input": r"python:mine:no_input returned \(Colours, tuple\); expected \(module",
    "bad_input": r"raised UserError: mean must be three numbers, found \(1, 2\)",
    "one_size": "takes images of 224 pixels only, found 32; set data.image_size=224",
}
# Bodies of a module's forward, and what is said of them.
FORWARDS = {
    "return 1 / 0": r"failed on images \(2, 3, 32, 32\) with ZeroDivisionError: division by zero",
    "return [images]": r"returned list, expected a tensor of features \(N, D\)",
    "return images.mean()": r"returned shape \(\) for 2 images, expected features \(2, D\)",
    "return images[:, None]": r"returned shape \(2, 1, 3, 32, 32\) for 2 images",
    "return images[:1, :, 0, 0]": r"returned shape \(1, 3\) for 2 images",
    "return images[:, :0, 0, 0]": r"returned shape \(2, 0\) for 2 images",
    "return images[:, :, 0, 0].long()": "features of type torch.int64, expected float32",
    "return torch.empty(len(images), 3, device='meta')": "features on meta for images on cpu",
    "return images[:, 0, 0, : len(images)]": "features of width 1, and of width 2 before",
    "return images[:, :, 0, 0] / 0": "features that are not finite for random images",
    "return images[:, :, 0, 0] - images.mean()": "other features alone than beside another image",
    "return (images - images.mean(0)).flatten(1) / images.std(0, correction=0).flatten()": (
        r"other features alone than .* \(difference nan\)"
    ),
    "return torch.rand(len(images), 4)": "other features alone than .* on nothing random",
    "self.train(); return images[:, :, 0, 0]": "put in eval mode, and its module 'model' is in tr",
    "self.count += 1; return images[:, :, 0, 0]": r"changed its tensors .*\(count\)",
    "self.weight.data += 1; return images[:, :, 0, 0]": r"changed its tensors .*\(weight\)",
    "self.new = nn.Buffer(images[:1]); return images[:, :, 0, 0]": r"changed its tensors .*\(new\)",
}
MODULE = """
class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, images):
        {}


def wrong():
    return Module(), INPUT
"""


def refused(spec: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail, and return its one line of error."""
    assert main(["knn", spec, "--out", "record.json", *DIGITS]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in lines)
    assert not Path("record.json").exists()
    return lines[-1]


@pytest.mark.parametrize("function", BAD)
def test_a_bad_function_is_one_line(
    write_module: Write, function: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong with it."""
    write_module(BAD[function])
    with pytest.raises(UserError, match=MESSAGES[function]):
        load_network(f"python:mine:{function}", 32)
    refused(f"python:mine:{function}", capsys)


@pytest.mark.parametrize("body", FORWARDS)
def test_a_bad_forward_is_one_line(
    write_module: Write, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it returns or does, on the first two images."""
    write_module(MODULE.format(body))
    with pytest.raises(UserError, match=FORWARDS[body]):
        load_network("python:mine:wrong", 32)
    assert "python:mine:wrong" in refused("python:mine:wrong", capsys)


LATE = {
    "return images[:, :, 0, 0] / 0 if len(images) > 2 else images[:, :, 0, 0]": "not finite",
    "assert len(images) < 3, 'too many'; return images[:, :, 0, 0]": "AssertionError: too many",
    "self.weight.data += len(images) > 2; return images[:, :, 0, 0]": r"changed its tensors",
    "len(images) > 2 and self.train(); return images[:, :, 0, 0]": "is in training mode",
    "return images[:, :, 0, 0] if len(images) < 3 else images[:, 0, 0]": "of width 32, and of",
}


@pytest.mark.parametrize("body", LATE)
def test_a_forward_that_fails_later_is_one_line(
    write_module: Write, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On more than two images, after it was tried."""
    write_module(MODULE.format(body))
    load_network("python:mine:wrong", 32)
    with pytest.raises(AssertionError, match=LATE[body]):
        raise AssertionError(refused("python:mine:wrong", capsys))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import absent_library", "ModuleNotFoundError: No module named 'absent_library'"),
        ("def make(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    write_module: Write, code: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the folder in which it was looked for."""
    folder = write_module(code).parent
    with pytest.raises(UserError, match=rf"cannot import 'mine' .* '{folder}' or .*{message}"):
        load_network("python:mine:make", 32)
    assert "cannot import 'elsewhere'" in refused("python:elsewhere:make", capsys)


def test_stages_of_another_network_are_refused(write_module: Write) -> None:
    """``extract`` refuses them in Python, as evaluations do."""
    write_module("")
    backbone = load_network("python:mine:make", 8).backbone
    with pytest.raises(UserError, match="layers are a ResNet's stages, and python:mine:make is"):
        extract(backbone, TensorDataset(torch.zeros(2, 3, 8, 8)), layers=("layer3",))


AWKWARD = """
class Awkward(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(48, 5), nn.Dropout(0.5))
        self.requires_grad_(False)

    @torch.inference_mode()
    def forward(self, images):
        return self.layer(images.view(len(images), -1))


def awkward():
    return Awkward(), INPUT
"""


def test_what_users_forget_is_harmless(write_module: Write) -> None:
    """A module in training mode, one that wants contiguous images, random weights: seeded."""
    write_module(AWKWARD)
    loaded = [load_network("python:mine:awkward", 4, seed=seed) for seed in (0, 0, 1)]
    assert loaded[0].sha256 == loaded[1].sha256 != loaded[2].sha256
    images = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    features = loaded[0].backbone(images)
    assert torch.equal(features, loaded[1].backbone(images))
    assert not features.is_inference()


@pytest.mark.parametrize(
    "layer",
    [
        "nn.LazyLinear(3)",
        "nn.Linear(4, 3, device='meta')",
        "nn.ParameterList([nn.Parameter(torch.eye(3).to_sparse(), requires_grad=False)])",
    ],
)
def test_tensors_without_bytes_are_refused(write_module: Write, layer: str) -> None:
    """They cannot be compared before and after."""
    write_module(f"def odd():\n    return nn.Sequential({layer}), INPUT\n")
    with pytest.raises(UserError, match="has a tensor without values, or a sparse or quantized"):
        load_network("python:mine:odd", 4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_scripted_module_is_taken(write_module: Write) -> None:
    """As ``torch.jit.load`` returns it."""
    write_module(
        "def scripted():\n"
        "    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return torch.jit.script(layers), INPUT\n"
    )
    loaded = load_network("python:mine:scripted", 8)
    assert loaded.backbone(torch.randn(3, 3, 8, 8)).shape == (3, 4)
    Classifier(loaded.backbone, 3, seed=0).train()(torch.randn(2, 3, 8, 8)).sum().backward()


def test_what_cannot_be_fine_tuned_is_refused(write_module: Write) -> None:
    """Features without gradients, and networks without parameters."""
    write_module(AWKWARD)
    classifier = Classifier(load_network("python:mine:awkward", 4).backbone, 3, seed=0).train()
    with pytest.raises(UserError, match="without gradients, so it cannot be fine-tuned"):
        classifier(torch.randn(2, 3, 4, 4))
    with pytest.raises(UserError, match="has no parameters, so there is nothing to fine-tune"):
        Classifier(load_network("python:mine:make", 4).backbone, 3, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": "abc"}, "mean must be three numbers"),
        ({"std": (1.0, float("nan"), 1.0)}, "std must be three numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"image_size": 0}, "image_size must be a number of pixels or None, found 0"),
        ({"resize": 2.5}, "resize must be a number of pixels or None, found 2.5"),
        ({"interpolation": "nearest"}, "interpolation must be one of bilinear, bicubic or None"),
        ({"num_prefix_tokens": -1}, "num_prefix_tokens must count, found -1"),
    ],
)
def test_preprocessing_is_checked(changes: dict[str, Any], message: str) -> None:
    """Where the user writes it."""
    with pytest.raises(UserError, match=message):
        Preprocessing(**({"mean": (0.5,) * 3, "std": (0.5,) * 3} | changes))
