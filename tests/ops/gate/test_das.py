"""Deformable attention against its formula, and its convolution against torchvision's."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from ops.gate.das import DAS, DeformableDepthwise, sample
from tests.ops.conftest import assert_near
from tests.ops.gate.conftest import assert_is, lively


def test_sample_is_bilinear_with_zeros_outside():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    rows, columns = torch.tensor([[0.0, 1.5, 2.0, -0.5]]), torch.tensor([[0.0, 2.25, 3.5, 1.0]])
    # the corner, between four, half beyond the right, half above
    torch.testing.assert_close(sample(x, rows, columns), torch.tensor([[[0.0, 8.25, 5.5, 0.5]]]))


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_convolution_is_that_of_torchvision(kernel_size):
    module = DeformableDepthwise(6, kernel_size).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    points = kernel_size * kernel_size

    def formula(x):
        down, right, factors = module.offset(x).chunk(3, 1)
        kernel = module.weight.reshape(6, 1, kernel_size, kernel_size)
        offsets = torch.stack([down, right], 2).flatten(1, 2)
        assert offsets.shape[1] == 2 * points
        return deform_conv2d(x, offsets, kernel, padding=kernel_size // 2, mask=factors.sigmoid())

    assert_is(module, formula, torch.randn(2, 6, 5, 7))


def test_begins_as_half_of_a_plain_convolution():
    module = DeformableDepthwise(4)
    x = torch.randn(1, 4, 6, 5)
    plain = torch.nn.functional.conv2d(x, module.weight.reshape(4, 1, 3, 3), padding=1, groups=4)
    assert_near(module(x), plain / 2)


def test_is_the_formula_with_its_gradients():
    module = lively(DAS(10, ratio=0.4))

    def formula(x):
        hidden = module.reduce(module.depthwise(x))
        mean, variance = hidden.mean((2, 3), keepdim=True), hidden.var((2, 3), correction=0, keepdim=True)
        hidden = (hidden - mean) / (variance + 1e-5).sqrt()
        hidden = hidden * module.norm1.weight[:, None, None] + module.norm1.bias[:, None, None]
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        scores = module.expand(module.deformable(hidden))
        scores = (scores - scores.mean(1, keepdim=True)) / (scores.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        scores = scores * module.norm2.weight[:, None, None] + module.norm2.bias[:, None, None]
        return x / (1 + torch.exp(-scores))

    assert module.reduce.out_channels == 4
    assert_is(module, formula, torch.randn(2, 10, 5, 4))


def test_impossible_arguments():
    with pytest.raises(ValueError, match='ratio 0.2 leaves none of 4 channels'):
        DAS(4)
    with pytest.raises(ValueError, match='kernel_size 2'):
        DAS(10, kernel_size=2)
