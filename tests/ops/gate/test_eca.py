"""Efficient channel attention against its formula, one channel at a time."""

import pytest
import torch

from ops.gate.eca import EfficientChannelAttention, adaptive_kernel_size
from tests.ops.gate.conftest import assert_is, lively


@pytest.mark.parametrize('kernel_size', [1, 5])
def test_is_the_formula_with_its_gradients(kernel_size):
    module = lively(EfficientChannelAttention(7, kernel_size))
    weight = module.conv.weight.flatten()

    def formula(x):
        means, planes = x.flatten(2).sum(2) / x[0, 0].numel(), []
        for channel in range(7):
            score = 0
            for step in range(kernel_size):
                beside = channel + step - kernel_size // 2
                score = score + (weight[step] * means[:, beside] if 0 <= beside < 7 else 0)
            planes.append(x[:, channel] / (1 + torch.exp(-score))[:, None, None])
        return torch.stack(planes, 1)

    assert_is(module, formula, torch.randn(2, 7, 3, 5))


def test_kernel_of_the_paper():
    # log2(C) + 1, halved: 4, 4.5, 5, 5.5, 6 for these widths.
    assert [adaptive_kernel_size(dim) for dim in (128, 256, 512, 1024, 2048)] == [5, 5, 5, 5, 7]
    assert EfficientChannelAttention(2048, None).conv.kernel_size == (7,)
    assert EfficientChannelAttention(2048).conv.kernel_size == (3,)


def test_impossible_arguments():
    with pytest.raises(ValueError, match='kernel_size 4 has no middle'):
        EfficientChannelAttention(8, 4)
    with pytest.raises(ValueError, match='dim is 0'):
        EfficientChannelAttention(0, None)
