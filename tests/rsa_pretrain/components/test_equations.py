"""The trainer against the papers' training loops, written out in tests/reference."""

import functools

import byol
import layers
import pytest
import rsa_algorithm1
import simsiam
import torch
import torch.nn.functional as F

from rsa_pretrain.components import losses, schedules
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.optim import fused_sgd
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.components.target import TargetUpdate
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.methods import rsa
from rsa_pretrain.methods import settings as method_config
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.training import learning_rate, run_state
from rsa_pretrain.training import trainer as trainer_module
from rsa_pretrain.training.trainer import Trainer

NUM_STEPS, BATCH_SIZE = 50, 8
OPTIMIZER = {"base_lr": 1.0, "weight_decay": 5e-4}
RUN = {
    "data": {"name": "digits", "image_size": 8, "num_train_images": 5 * BATCH_SIZE},
    "backbone": {"arch": "resnet18", "stem": "cifar"},
    "optimizer": OPTIMIZER,
    "training": {
        "epochs": NUM_STEPS // 5,
        "global_batch_size": BATCH_SIZE,
        "device": "cpu",
        "checkpoint_every_epochs": NUM_STEPS // 5,
    },
    "monitor": {"log_every_steps": 1},
}
MLP = {"hidden_dim": 16, "output_dim": 8}
SIMSIAM_MLP = {"projector_layers": 2, "projector_dim": 16, "predictor_hidden_dim": 8}

# What is trained: the method's settings, and its loop.
CASES = {
    "rsa, beta decays": (
        {"name": "rsa", "beta_base": 0.4, **MLP},
        functools.partial(rsa_algorithm1.train, beta_base=0.4, beta_decays=True),
    ),
    "rsa, beta fixed": (
        {"name": "rsa", "beta_base": 0.4, "beta_mode": "fixed", **MLP},
        functools.partial(rsa_algorithm1.train, beta_base=0.4, beta_decays=False),
    ),
    "byol": ({"name": "byol", **MLP}, byol.train),
    "simsiam": ({"name": "simsiam", **SIMSIAM_MLP}, simsiam.train),
    "simsiam + rsa": (
        {"name": "simsiam_rsa", "beta_base": 0.4, **SIMSIAM_MLP},
        functools.partial(simsiam.train_with_rsa, beta_base=0.4),
    ),
}


def a_step_early(schedule):
    """The schedule, asked at step k for step k + 1."""
    return lambda *settings_and_progress: schedule(
        *settings_and_progress[:-1], settings_and_progress[-1] + 1 / NUM_STEPS
    )


def without_stop_gradient(unit_predictions, unit_targets):
    """Negative cosine, both arguments moved."""
    return -F.cosine_similarity(unit_predictions, unit_targets).mean()


def norms_and_biases_without_decay(model, config):
    """The optimizer, with weight decay for matrices and kernels alone."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return fused_sgd(groups, lr=0.0, momentum=config.sgd_momentum)


class TargetAndStatisticsUpdate(TargetUpdate):
    """The target's update, of BatchNorm's running statistics too."""

    def __init__(self, *pairs):
        super().__init__(*pairs)
        self.pairs = pairs

    def __call__(self, ema_momentum):
        """Move parameters, and statistics too."""
        super().__call__(ema_momentum)
        for target, online in self.pairs:
            for ours, theirs in zip(target.buffers(), online.buffers(), strict=True):
                if ours.is_floating_point():
                    ours.lerp_(theirs, 1 - ema_momentum)


def own_weak_views(z_a, z_a_prime, z_w, z_w_prime, beta):
    """Eq. 5 with each aggressive view drawn to the weak view it was made of."""
    return losses.rsa_loss(z_a, z_a_prime, z_w_prime, z_w, beta)


# One mistake each: what is replaced, and by what.
MISTAKES = {
    "beta a step early": (method_config, "rsa_beta", a_step_early(schedules.rsa_beta)),
    "tau a step early": (method_config, "cosine", a_step_early(schedules.cosine)),
    "rate a step early": (learning_rate, "warmup_cosine", a_step_early(schedules.warmup_cosine)),
    "no stop-gradient": (losses, "negative_product", without_stop_gradient),
    "own weak views": (rsa, "rsa_loss", own_weak_views),
    "norms without decay": (run_state, "build_optimizer", norms_and_biases_without_decay),
    "averaged statistics": (rsa, "TargetUpdate", TargetAndStatisticsUpdate),
}


@pytest.fixture(scope="module", autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def equations():
    """Results of the equations, by case; kept because they take as long as the trainer."""
    return {}


@pytest.fixture
def train_both(tmp_path, equations, monkeypatch, narrow_resnets):
    """A function that trains a case by the trainer and by its loop, from equal weights.

    It returns two pairs: logged numbers of every step, and the final weights and statistics.
    """

    def train(case):
        method, loop = CASES[case]
        tree = RUN | {"method": method, "output_dir": str(tmp_path / "run")}
        config = parse_tree(PretrainConfig, tree, "golden check")
        trainer = Trainer(config, open_images(config.data, "train"), resume=False)
        batches = make_batches(num_views=4 if "beta_base" in method else 2)
        if case not in equations:
            start = trainer.state.method.state_dict()
            w = {name: x.clone() for name, x in start.items() if not name.startswith("target_")}
            equations[case] = loop(w, batches, **OPTIMIZER), w
        loaded = ((list(views), None) for views in batches)
        monkeypatch.setattr(trainer_module, "training_views", lambda *_: loaded)
        trainer.run()
        log = read_metrics(config.output_dir / "metrics.jsonl")
        return (log, trainer.state.method.state_dict()), equations[case]

    return train


def make_batches(num_views):
    """Views of images for every step: each image, differently disturbed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(NUM_STEPS, 1, BATCH_SIZE, 3, 8, 8, generator=generator)
    return images + torch.randn(NUM_STEPS, num_views, BATCH_SIZE, 3, 8, 8, generator=generator)


def different_numbers(log, history):
    """Names and steps of logged numbers that are off by more than 1e-6, relatively.

    The log rounds losses to float32, which is 6e-8.
    """
    assert len(log) == len(history) == NUM_STEPS
    return [
        (name, step)
        for step, (line, expected) in enumerate(zip(log, history, strict=True))
        for name, value in expected.items()
        if line[name] != pytest.approx(value, rel=1e-6)
    ]


def different_tensors(tensors, w):
    """Names of tensors with an element that is off by more than 1e-6, relatively.

    Below 1e-12 all is equal: the mean of what leaves a BatchNorm is 0 but for rounding.
    """
    assert tensors.keys() == w.keys()
    return [name for name in w if not torch.allclose(tensors[name], w[name], rtol=1e-6, atol=1e-12)]


@pytest.mark.parametrize("case", CASES)
def test_trainer_follows_the_equations(case, train_both):
    """Fifty steps agree to 1e-6: losses, schedules, weights, statistics, online and target."""
    (log, tensors), (history, w) = train_both(case)
    assert different_numbers(log, history) == []
    assert different_tensors(tensors, w) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake, train_both, monkeypatch):
    """A trainer with one thing wrong ends at other weights or statistics."""
    monkeypatch.setattr(*MISTAKES[mistake])
    (_, tensors), (_, w) = train_both("rsa, beta decays")
    assert different_tensors(tensors, w)


def test_written_out_network_is_resnet18():
    """Features and running statistics of the real ResNet-18 equal those of the written-out one."""
    config = BackboneConfig(arch="resnet18", stem="cifar", zero_init_residual=False)
    network = build_backbone(config).train()
    w = {f"f.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(network(images), layers.resnet(w, "f", images))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, w[f"f.{name}"], msg=name)
