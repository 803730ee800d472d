"""The bottleneck attention module against its formula, one position at a time."""

import pytest
import torch
from torch.nn import functional as F

from ops.gate.bam import BAM
from tests.ops.gate.conftest import assert_is, batch_norm, lively


def normed(norm, value):
    """(B, R, ...) through a batch norm and a rectifier."""
    return torch.stack([batch_norm(norm, value[:, c], c) for c in range(value.shape[1])], 1).relu()


def dilated(conv, x):
    """A dilated 3 x 3 convolution as the sum of nine shifted maps."""
    step, (height, width) = conv.dilation[0], x.shape[2:]
    padded, out = F.pad(x, [step] * 4), 0
    for i in range(3):
        for j in range(3):
            shifted = padded[:, :, i * step : i * step + height, j * step : j * step + width]
            out = out + torch.einsum('oc,bchw->bohw', conv.weight[:, :, i, j], shifted)
    return out + conv.bias[:, None, None]


def written_out(module, x, num_layers, dilation_conv_num):
    channel, spatial = module.channel, module.spatial
    scores = x.flatten(2).sum(2) / x[0, 0].numel()
    for i in range(num_layers):
        fc = channel.get_submodule(f'fc_{i}')
        scores = normed(channel.get_submodule(f'bn_{i + 1}'), scores @ fc.weight.T + fc.bias)
    scores = scores @ channel.fc_final.weight.T + channel.fc_final.bias
    reduce, final = spatial.conv_reduce0, spatial.conv_final
    hidden = torch.einsum('oc,bchw->bohw', reduce.weight.flatten(1), x) + reduce.bias[:, None, None]
    hidden = normed(spatial.bn_reduce0, hidden)
    for i in range(dilation_conv_num):
        hidden = dilated(spatial.get_submodule(f'conv_di_{i}'), hidden)
        hidden = normed(spatial.get_submodule(f'bn_di_{i}'), hidden)
    plane = torch.einsum('oc,bchw->bohw', final.weight.flatten(1), hidden) + final.bias
    return scores[:, :, None, None], plane


@pytest.mark.parametrize(('num_layers', 'dilation_conv_num', 'dilation'), [(1, 2, 4), (2, 1, 2)])
def test_is_the_formula_with_its_gradients(num_layers, dilation_conv_num, dilation):
    module = lively(BAM(6, 2, num_layers, dilation_conv_num, dilation))

    def formula(x):
        channel, plane = written_out(module, x, num_layers, dilation_conv_num)
        return x * (1 + (channel * plane).sigmoid())

    assert_is(module, formula, torch.randn(2, 6, 5, 7))


def test_sum_of_the_paper():
    module = lively(BAM(6, 2, combine=torch.add))

    def formula(x):
        channel, plane = written_out(module, x, 1, 2)
        return x * (1 + (channel + plane).sigmoid())

    assert_is(module, formula, torch.randn(2, 6, 5, 7))


def test_impossible_arguments():
    with pytest.raises(ValueError, match='dilation=0'):
        BAM(32, dilation=0)
    with pytest.raises(ValueError, match='reduction 16 leaves none of 8 channels'):
        BAM(8)
