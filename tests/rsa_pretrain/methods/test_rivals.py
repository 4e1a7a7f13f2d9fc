"""Every method but RSA, whose own file is test_rsa.py."""

import copy

import pytest
import rival_methods
import torch
from pydantic import TypeAdapter
from torch import nn

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.heads import build_simclr_projector
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.methods.registry import METHODS
from rsa_pretrain.methods.settings import MethodConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

RATES = (0.05, 0.04, 0.02)


def build(name, small_methods, **settings):
    """A method with narrow heads in float64, in train mode."""
    tree = {"name": name} | small_methods[name] | settings
    config = TypeAdapter(MethodConfig).validate_python(tree)
    backbone = build_backbone(BackboneConfig(arch="resnet18", stem="standard"))
    return METHODS[name](backbone, config).double().train()


def run_steps(method, batches):
    """Take a step of SGD per batch and return the losses."""
    optimizer = torch.optim.SGD(
        [p for p in method.parameters() if p.requires_grad], momentum=0.9, weight_decay=1e-3
    )
    losses = []
    for k, views in enumerate(batches):
        optimizer.param_groups[0]["lr"] = RATES[k]
        progress = k / len(batches)
        output = method(views, method.scalars(progress))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_optimizer_step(progress, [output])
        losses.append(output.loss.item())
    return losses


def copy_networks(method, *names):
    """Copies of the named networks, to be trained by the reference."""
    networks = [copy.deepcopy(method.get_submodule(name)) for name in names]
    parameters = [p for network in networks for p in network.parameters()]
    return networks, parameters, [torch.zeros_like(p) for p in parameters]


def assert_same_weights(ours, theirs):
    """Equal parameters and BatchNorm buffers."""
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_simclr_equals_its_equations(small_methods, random_views):
    """The loss is Algorithm 1's on the projections of two forwards."""
    method = build("simclr", small_methods)
    (f, g), _, _ = copy_networks(method, "backbone", "projector")
    v, v_prime = random_views(2)
    loss = method([v, v_prime], {}).loss.item()
    expected = rival_methods.nt_xent(g(f(v)).tolist(), g(f(v_prime)).tolist(), 0.5)
    assert loss == pytest.approx(expected, rel=1e-9)


def test_simclr_s_projector_is_its_code_s():
    """Both layers are normalised over the batch; the last norm scales and does not shift."""
    projector = build_simclr_projector(512, 256, 64).train()
    assert projector[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert projector[3].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert projector[0].bias is projector[3].bias is None
    nn.init.uniform_(projector[4].weight, 0.5, 2.0)
    projections = projector(3 + torch.randn(512, 512))
    torch.testing.assert_close(projections.mean(0), torch.zeros(64), rtol=0, atol=1e-5)
    spread = projections.std(0, correction=0)
    torch.testing.assert_close(spread, projector[4].weight.detach(), rtol=0.05, atol=0)


def test_moco_v2_equals_its_equations(small_methods, random_views):
    """Three steps of losses, weights and queue equal the literal rewrite; the queue wraps."""
    method = build("moco_v2", small_methods)
    (f, g), theta, velocity = copy_networks(method, "backbone", "projector")
    f_k, g_k = copy.deepcopy(f), copy.deepcopy(g)
    queue = method.queue.keys.clone()
    batches = [random_views(2) for _ in RATES]
    losses = run_steps(method, batches)
    position = 0
    for k, (v, v_prime) in enumerate(batches):
        loss, keys = rival_methods.moco_step(
            lambda x: g(f(x)), lambda x: g_k(f_k(x)), queue, v, v_prime, 0.2
        )
        assert losses[k] == pytest.approx(loss.item(), rel=1e-9)
        rival_methods.sgd(theta, velocity, loss, RATES[k])
        rival_methods.ema(f_k, f, 0.99)
        rival_methods.ema(g_k, g, 0.99)
        for key in keys:
            queue[position] = key
            position = (position + 1) % len(queue)
    assert_same_weights(method.backbone, f)
    assert_same_weights(method.key_backbone, f_k)
    torch.testing.assert_close(method.queue.keys, queue)
    assert method.queue.position == position == 4


def test_supervised_is_cross_entropy(small_methods, random_views):
    """The loss is torch's cross-entropy of a linear classifier; top-1 counts its hits."""
    method = build("supervised", small_methods)
    (backbone, classifier), _, _ = copy_networks(method, "backbone", "classifier")
    (view,) = random_views(1)
    labels = torch.tensor([3, 1, 4, 1])
    output = method([view], {}, labels)
    logits = classifier(backbone(view))
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(logits.float(), labels))
    hits = (logits.argmax(1) == labels).float().mean().item()
    assert output.metrics["train_top1"].item() == pytest.approx(100 * hits)


@pytest.mark.parametrize(
    ("name", "num_views", "without_gradient"),
    [
        ("byol", 2, "target_"),
        ("simsiam", 2, None),
        ("simsiam_rsa", 4, None),
        ("simclr", 2, "projector.4.bias"),  # BatchNorm without a shift
        ("moco_v2", 2, "key_"),
    ],
)
def test_gradients_reach_exactly_the_trained_networks(
    name, num_views, without_gradient, small_methods, random_views
):
    """Momentum networks have none; every other parameter has one."""
    method = build(name, small_methods)
    method(random_views(num_views), method.scalars(0.0)).loss.backward()
    for parameter_name, parameter in method.named_parameters():
        frozen = without_gradient is not None and parameter_name.startswith(without_gradient)
        assert (parameter.grad is None) == frozen, parameter_name


def test_simsiams_targets_are_constants(small_methods, random_views):
    """A predictor that ignores its input cuts the only way of gradients to the projector."""
    method = build("simsiam", small_methods)
    nn.init.zeros_(method.predictor[3].weight)  # predictions are the bias, whatever comes in
    method(random_views(2), {}).loss.backward()
    assert method.predictor[3].bias.grad.abs().sum() > 0
    for parameter in method.projector.parameters():
        assert parameter.grad.abs().sum() == 0


def test_simsiam_rsa_follows_weak_views_only_as_targets(small_methods, random_views):
    """Gradients reach the pixels of the aggressive views, none those of the weak ones."""
    method = build("simsiam_rsa", small_methods, beta_base=0.4)
    views = [view.requires_grad_() for view in random_views(4)]
    method(views, method.scalars(0.0)).loss.backward()
    assert [view.grad is None for view in views] == [False, False, True, True]


def test_byols_views_follow_its_setting(small_methods):
    """AA asks for two aggressive views, AW for an aggressive and a weak one."""
    configs = {views: build("byol", small_methods, views=views).config for views in ("AA", "AW")}
    assert configs["AA"].view_set == "aggressive_pair"
    assert configs["AW"].view_set == "aggressive_weak"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "bootstrap"}, "'method.name' is 'bootstrap', expected one of 'rsa', "),
        ({"name": "simclr", "hidden_dim": 8}, "'method.temperature' is required"),
        (
            {"name": "byol", "hidden_dim": 8, "output_dim": 8, "beta_base": 1},
            "'method.beta_base' is not a setting of this 'method' but of another 'method.name'",
        ),
    ],
)
def test_wrong_method_settings_are_refused(tiny_tree, method, message):
    """A setting of another method, a missing one, an unknown method."""
    with pytest.raises(UserError, match=message):
        parse_tree(PretrainConfig, tiny_tree | {"method": method}, "run")
