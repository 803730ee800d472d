"""SimAM against its formula, one value at a time."""

import pytest
import torch

from ops.gate.simam import SimAM
from tests.ops.gate.conftest import assert_is


@pytest.mark.parametrize('e_lambda', [1e-4, 0.1])
def test_is_the_formula_with_its_gradients(e_lambda):
    def formula(x):
        out = []
        for plane in x.flatten(0, 1):
            mean = plane.sum() / plane.numel()
            variance = sum((value - mean) ** 2 for value in plane.flatten()) / (plane.numel() - 1)
            for value in plane.flatten():
                energy = (value - mean) ** 2 / (4 * (variance + e_lambda)) + 0.5
                out.append(value / (1 + torch.exp(-energy)))
        return torch.stack(out).reshape(x.shape)

    assert_is(SimAM(3, e_lambda), formula, torch.randn(2, 3, 3, 4))


def test_single_position_has_the_factor_of_no_distance():
    x = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(SimAM(3)(x), x * torch.tensor(0.5).sigmoid())


def test_lambda_must_be_positive():
    with pytest.raises(ValueError, match='e_lambda is 0'):
        SimAM(8, 0)
