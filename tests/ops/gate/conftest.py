"""What the tests of gates share."""

import torch

from tests.ops.conftest import assert_near


def lively(module):
    """Double precision in evaluation, with weights and statistics that are neither 0 nor 1."""
    for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
        torch.nn.init.uniform_(tensor, 0.2, 1.0)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return module.double().eval()


def assert_is(module, formula, x):
    """`module(x)` is `formula(x)`, with the gradients of the input and of every parameter."""
    x = x.double().requires_grad_()
    leaves = [x, *module.parameters()]
    actual, expected = module(x), formula(x)
    assert_near(actual, expected, torch.float64)
    upstream = torch.randn_like(expected)
    gradients = zip(*(torch.autograd.grad(out, leaves, upstream) for out in (actual, expected)))
    for gradient, wanted in gradients:
        assert wanted.any()
        assert_near(gradient, wanted, torch.float64)


def batch_norm(norm, value, channel):
    """One number of one channel through a batch norm in evaluation."""
    scaled = (value - norm.running_mean[channel]) / (norm.running_var[channel] + norm.eps).sqrt()
    return scaled * norm.weight[channel] + norm.bias[channel]
