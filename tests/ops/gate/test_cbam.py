"""The convolutional block attention module against its formula, one pooled map at a time."""

import pytest
import torch
from torch.nn import functional as F

from ops.gate.cbam import CBAM, POOLINGS
from tests.ops.gate.conftest import assert_is, batch_norm, lively


def channel_gate(gate, x):
    """sigmoid of the sum over poolings of the perceptron of the pooled map."""
    pooled = {
        'avg': lambda plane: plane.sum() / plane.numel(),
        'max': lambda plane: plane.max(),
        'lp': lambda plane: (plane * plane).sum().sqrt(),
        'lse': lambda plane: plane.exp().sum().log(),
    }
    out = []
    for image in x:
        score = 0
        for name in gate.pool_types:
            vector = torch.stack([pooled[name](plane) for plane in image])
            hidden = (gate.fc1.weight @ vector + gate.fc1.bias).relu()
            score = score + gate.fc2.weight @ hidden + gate.fc2.bias
        out.append(image * score.sigmoid()[:, None, None])
    return torch.stack(out)


def spatial_gate(gate, x):
    """sigmoid of the norm of the convolution of the largest and the mean channel, one position at a time."""
    kernel = gate.conv.weight[0]
    size = kernel.shape[-1]
    pooled = torch.stack([x.max(1).values, x.mean(1)], 1)
    padded = F.pad(pooled, [size // 2] * 4)
    rows = []
    for i in range(x.shape[2]):
        scores = [(padded[:, :, i : i + size, j : j + size] * kernel).sum((1, 2, 3)) for j in range(x.shape[3])]
        rows.append(torch.stack(scores, 1))
    return x * batch_norm(gate.bn, torch.stack(rows, 1), 0).sigmoid()[:, None]


@pytest.mark.parametrize('pool_types', [('avg', 'max'), ('lse', 'lp'), ('max',)])
@pytest.mark.parametrize('kernel_size', [3, 7])
def test_is_the_formula_with_its_gradients(pool_types, kernel_size):
    module = lively(CBAM(8, reduction=1, pool_types=pool_types, kernel_size=kernel_size))
    assert_is(
        module,
        lambda x: spatial_gate(module.spatial_gate, channel_gate(module.channel_gate, x)),
        torch.randn(2, 8, 4, 5),
    )


def test_channel_gate_alone():
    module = lively(CBAM(6, reduction=2, no_spatial=True))
    assert_is(module, lambda x: channel_gate(module.channel_gate, x), torch.randn(2, 6, 4, 5))


def test_gradient_at_a_map_of_zeros_is_finite():
    module = CBAM(4, 2, pool_types=list(POOLINGS))
    x = torch.zeros(1, 4, 3, 3, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.isfinite().all()


def test_impossible_arguments():
    with pytest.raises(ValueError, match='median'):
        CBAM(8, 2, pool_types=('avg', 'median'))
    with pytest.raises(ValueError, match='one or more'):
        CBAM(8, 2, pool_types=())
    with pytest.raises(ValueError, match='reduction 16 leaves none of 8 channels'):
        CBAM(8)
    with pytest.raises(ValueError, match='kernel_size 2'):
        CBAM(8, 2, kernel_size=2)
