import copy
import json
from pathlib import Path

import pytest
import torch

from rsa_pretrain.backbone import build_backbone
from rsa_pretrain.config import BackboneConfig, PretrainConfig
from rsa_pretrain.config_files import parse_tree
from rsa_pretrain.data import open_images
from rsa_pretrain.method_config import RSAConfig
from rsa_pretrain.methods.rsa import RSA
from rsa_pretrain.metrics_log import read_metrics
from rsa_pretrain.trainer import Trainer

GOLDEN = Path(__file__).parents[1] / "golden" / "rsa_losses.json"


def small_rsa(**settings):
    """RSA over ResNet-18 with narrow heads, in float64."""
    config = RSAConfig(
        **{"name": "rsa", "hidden_dim": 12, "output_dim": 6, "beta_base": 0.4} | settings
    )
    backbone = build_backbone(BackboneConfig(arch="resnet18", stem="standard"))
    return RSA(backbone, config).double().train()


def random_views(num_images=4):
    """Four float64 views of 32 px."""
    return [torch.randn(num_images, 3, 32, 32, dtype=torch.float64) for _ in range(4)]


def test_three_steps_equal_algorithm_1(algorithm1):
    """Losses, online and target weights of the module equal the literal float64 rewrite."""
    method = small_rsa()
    f, g, q = (
        copy.deepcopy(network) for network in (method.backbone, method.projector, method.predictor)
    )
    batches = [random_views() for _ in range(3)]
    rates = [0.05, 0.04, 0.02]
    optimizer = torch.optim.SGD(
        [p for p in method.parameters() if p.requires_grad], momentum=0.9, weight_decay=1e-3
    )
    losses = []
    for k, views in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rates[k]
        output = method(views, k / 3)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_optimizer_step(k / 3)
        losses.append(output.loss.item())
    expected, f_xi, g_xi = algorithm1.train(
        f, g, q, batches, beta_base=0.4, tau_base=0.99, lr=rates, momentum=0.9, weight_decay=1e-3
    )
    assert losses == pytest.approx(expected, rel=1e-9)
    networks = [method.backbone, method.projector, method.predictor]
    networks += [method.target_backbone, method.target_projector]
    for ours, theirs in zip(networks, [f, g, q, f_xi, g_xi], strict=True):
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, theirs.state_dict()[name], msg=name)


def test_no_gradient_reaches_the_target():
    """The target has no gradients; every online parameter has one."""
    method = small_rsa()
    method(random_views(), 0.0).loss.backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith("target_"), name


def test_weak_views_never_enter_the_online_network():
    """The online network's gradients do not depend on the weak views when beta is 1."""
    method = small_rsa(beta_base=1.0, beta_mode="fixed")
    views = random_views()
    gradients = []
    for weak in (views[2:], random_views()[2:]):
        network = copy.deepcopy(method)
        network([*views[:2], *weak], 0.0).loss.backward()
        gradients.append(network.backbone.conv1.weight.grad)
    assert torch.equal(*gradients)


def test_each_view_is_a_forward_of_its_own():
    """BatchNorm counts two batches per step in each network, and one if views are batched."""
    for batch_views, forwards in ((False, 2), (True, 1)):
        method = small_rsa(batch_views=batch_views)
        method(random_views(), 0.0)
        assert method.backbone.bn1.num_batches_tracked == forwards
        assert method.target_backbone.bn1.num_batches_tracked == forwards


def test_target_statistics_are_its_own():
    """The target's BatchNorm runs in train mode on the weak views."""
    method = small_rsa()
    method(random_views(), 0.0)
    online, target = method.backbone.bn1.running_mean, method.target_backbone.bn1.running_mean
    assert target.abs().sum() > 0
    assert not torch.equal(online, target)


def test_beta_modes():
    """Decay follows Eq. 6; fixed stays."""
    assert small_rsa(beta_mode="decay").beta(0.5) == pytest.approx(0.2)
    assert small_rsa(beta_mode="fixed").beta(0.5) == 0.4


def test_collapse_monitor():
    """prediction_std is near 1 for spread-out vectors and 0 for equal ones."""
    method = small_rsa()
    views = random_views(num_images=16)
    assert method(views, 0.0).metrics["prediction_std"] > 0.3
    method.predictor[3].weight.data.zero_()
    assert method(views, 0.0).metrics["prediction_std"] == pytest.approx(0.0, abs=1e-6)


def test_golden_losses(tiny_tree, monkeypatch, request):
    """Twenty seeded steps of the trainer in float64 repeat the committed losses.

    Regenerate, only after a change of arithmetic that is meant and described in the changelog,
    with ``pytest tests/rsa_pretrain/test_rsa.py --regenerate-golden``. Twenty steps amplify
    rounding about a millionfold, hence float64; the logged means are float32.
    """
    tiny_tree["training"]["epochs"] = 5
    config = parse_tree(PretrainConfig, tiny_tree, "golden run")
    trainer = Trainer(config, open_images(config.data, "train"), resume=False)
    trainer.state.method.double()
    in_float32 = trainer._batches
    in_float64 = ([view.double() for view in views] for views in in_float32())
    monkeypatch.setattr(trainer, "_batches", lambda: in_float64)
    trainer.run()
    losses = [line["loss"] for line in read_metrics(config.output_dir / "metrics.jsonl")]
    assert len(losses) == 20
    if request.config.getoption("--regenerate-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)
