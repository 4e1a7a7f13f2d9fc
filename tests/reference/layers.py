"""Layers and networks written out for float64: no torch.nn, no code of the package.

Weights and BatchNorm statistics are one dict, ``w``, from torchvision's names (behind the name of
their network) to tensors. Running statistics are replaced in it by every forward.
"""

import torch.nn.functional as F


def is_parameter(name):
    """Return whether a tensor is trained, unlike running statistics."""
    return name.endswith((".weight", ".bias"))


def batch_norm(w, name, x):
    """Ioffe and Szegedy 2015, Algorithm 1, per channel over batch and pixels.

    Statistics for inference: a moving average with factor 0.1 (torch's default), the variance
    unbiased as in their Algorithm 2.
    """
    axes = [0, *range(2, x.ndim)]
    mean = x.mean(axes, keepdim=True)
    variance = (x - mean).pow(2).mean(axes, keepdim=True)
    count = x.numel() // x.shape[1]
    for statistic, value in (("mean", mean), ("var", variance * count / (count - 1))):
        running = f"{name}.running_{statistic}"
        w[running] = 0.9 * w[running] + 0.1 * value.detach().flatten()
    w[f"{name}.num_batches_tracked"] = w[f"{name}.num_batches_tracked"] + 1
    y = (x - mean) / (variance + 1e-5).sqrt()
    if f"{name}.weight" not in w:  # without affine parameters
        return y
    gamma, beta = w[f"{name}.weight"].view_as(mean), w[f"{name}.bias"].view_as(mean)
    return gamma * y + beta


def relu(x):
    """max(x, 0), with derivative 0 at 0."""
    return x * (x > 0)


def conv(w, name, x, stride=1):
    """A convolution without bias, padded to keep the size at stride 1."""
    kernel = w[f"{name}.weight"]
    return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)


def linear(w, name, x):
    """Multiply by the matrix, and add the bias where there is one."""
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def residual_block(w, name, x, stride):
    """He et al. 2016, Eq. 1 and 2: two 3x3 convolutions and the input, projected if it must be."""
    y = relu(batch_norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x, stride)))
    y = batch_norm(w, f"{name}.bn2", conv(w, f"{name}.conv2", y))
    if f"{name}.downsample.0.weight" in w:
        x = batch_norm(w, f"{name}.downsample.1", conv(w, f"{name}.downsample.0", x, stride))
    return relu(y + x)


def resnet(w, name, x):
    """A ResNet of such blocks behind the 3x3 stem for small images; the mean over pixels."""
    x = relu(batch_norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x)))
    for layer, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2), ("layer4", 2)):
        block = 0
        while f"{name}.{layer}.{block}.conv1.weight" in w:
            x = residual_block(w, f"{name}.{layer}.{block}", x, stride if block == 0 else 1)
            block += 1
    return x.mean((2, 3))


def mlp(w, name, x):
    """BYOL, Section 3.3: linear layer, BatchNorm, ReLU, linear layer; SimSiam's predictor too."""
    return linear(w, f"{name}.3", relu(batch_norm(w, f"{name}.1", linear(w, f"{name}.0", x))))


def simsiam_projector(w, name, x):
    """SimSiam, Section 3: BatchNorm behind every linear layer, ReLU between layers."""
    layer = 0
    while True:
        x = batch_norm(w, f"{name}.{layer + 1}", linear(w, f"{name}.{layer}", x))
        layer += 3
        if f"{name}.{layer}.weight" not in w:
            return x
        x = relu(x)
