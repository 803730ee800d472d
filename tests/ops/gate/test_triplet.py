"""Triplet attention against its formula: each gate on a map whose axes are exchanged."""

import pytest
import torch

from ops.gate.triplet import TripletAttention
from tests.ops.gate.conftest import assert_is, lively
from tests.ops.gate.test_cbam import spatial_gate


@pytest.mark.parametrize('kernel_size', [3, 7])
@pytest.mark.parametrize('no_spatial', [False, True])
def test_is_the_formula_with_its_gradients(kernel_size, no_spatial):
    module = lively(TripletAttention(4, kernel_size, no_spatial))

    def formula(x):
        gated = [
            spatial_gate(module.cw, x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3),
            spatial_gate(module.hc, x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1),
        ]
        if not no_spatial:
            gated.append(spatial_gate(module.hw, x))
        return sum(gated) / len(gated)

    assert_is(module, formula, torch.randn(2, 4, 3, 5))


def test_kernel_must_be_odd():
    with pytest.raises(ValueError, match='kernel_size 4'):
        TripletAttention(8, 4)
