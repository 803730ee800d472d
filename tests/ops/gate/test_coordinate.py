"""Coordinate attention against its formula, one row and one column at a time."""

import pytest
import torch

from ops.gate.coordinate import CoordinateAttention
from tests.ops.gate.conftest import assert_is, batch_norm, lively


def test_is_the_formula_with_its_gradients():
    module = lively(CoordinateAttention(6, reduction=2, min_width=2))

    def factors(conv, means):
        hidden = means @ module.conv1.weight.flatten(1).T + module.conv1.bias
        hidden = torch.stack([batch_norm(module.bn1, hidden[:, c], c) for c in range(3)], 1)
        hidden = hidden * (hidden + 3).clamp(0, 6) / 6
        return (hidden @ conv.weight.flatten(1).T + conv.bias).sigmoid()

    def formula(x):
        rows = [factors(module.conv_h, x[:, :, i].sum(2) / x.shape[3]) for i in range(x.shape[2])]
        columns = [factors(module.conv_w, x[:, :, :, j].sum(2) / x.shape[2]) for j in range(x.shape[3])]
        return x * torch.stack(rows, 2)[..., None] * torch.stack(columns, 2)[:, :, None]

    assert_is(module, formula, torch.randn(2, 6, 4, 7))


def test_widths():
    assert CoordinateAttention(96).conv1.out_channels == 8
    assert CoordinateAttention(960).conv1.out_channels == 30
    with pytest.raises(ValueError, match='reduction=0'):
        CoordinateAttention(96, reduction=0)
