"""Subspace attention against its formula, one group and one position at a time."""

import pytest
import torch

from ops.gate.ulsam import ULSAM
from tests.ops.gate.conftest import assert_is, batch_norm, lively


@pytest.mark.parametrize('num_splits', [1, 3])
def test_is_the_formula_with_its_gradients(num_splits):
    module = lively(ULSAM(6, num_splits))
    width = 6 // num_splits

    def formula(x):
        out = torch.empty_like(x)
        for split, subspace in enumerate(module.subspaces):
            part = x[:, split * width : (split + 1) * width]
            dws, point = subspace.conv_dws, subspace.conv_point
            planes = [part[:, c] * dws.weight[c, 0, 0, 0] + dws.bias[c] for c in range(width)]
            planes = [batch_norm(subspace.bn_dws, plane, c).relu() for c, plane in enumerate(planes)]
            score = point.bias + torch.zeros_like(part[:, 0])
            for i in range(x.shape[2]):
                for j in range(x.shape[3]):
                    around = (slice(None), slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2))
                    largest = torch.stack([plane[around].flatten(1).max(1).values for plane in planes], 1)
                    score[:, i, j] = largest @ point.weight.flatten() + point.bias
            weights = batch_norm(subspace.bn_point, score, 0).relu().exp()
            weights = weights / weights.sum((1, 2), keepdim=True)
            out[:, split * width : (split + 1) * width] = part * (1 + weights[:, None])
        return out

    assert_is(module, formula, torch.randn(2, 6, 4, 3))


@pytest.mark.parametrize('num_splits', [0, 5])
def test_groups_must_divide_the_channels(num_splits):
    with pytest.raises(ValueError, match=f'dim 8 is not a multiple of num_splits {num_splits}'):
        ULSAM(8, num_splits)
