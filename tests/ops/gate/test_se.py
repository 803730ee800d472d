"""Squeeze-and-excitation against its formula, one factor at a time."""

import pytest
import torch

from ops.gate.se import SqueezeExcitation
from tests.ops.gate.conftest import assert_is, lively


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('linear', [True, False])
def test_is_the_formula_with_its_gradients(bias, linear):
    module = lively(SqueezeExcitation(9, reduction=4, bias=bias, linear=linear))

    def formula(x):
        first, second = (layer.weight.flatten(1) for layer in (module.fc1, module.fc2))
        b1, b2 = (module.fc1.bias, module.fc2.bias) if bias else (0, 0)
        out = []
        for image in x:
            means = torch.stack([plane.sum() / plane.numel() for plane in image])
            hidden = torch.clamp(first @ means + b1, min=0)
            out.append(image / (1 + torch.exp(-(second @ hidden + b2)))[:, None, None])
        return torch.stack(out)

    assert module.fc1.weight.shape[:2] == (2, 9)
    assert_is(module, formula, torch.randn(2, 9, 5, 3))


def test_both_layouts_of_the_weights_are_one_function():
    kernels, matrices = SqueezeExcitation(8, 2), SqueezeExcitation(8, 2, linear=True)
    state = kernels.state_dict()
    matrices.load_state_dict({key: tensor.flatten(1) if tensor.ndim > 1 else tensor for key, tensor in state.items()})
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(kernels(x), matrices(x))


def test_another_activation():
    module, x = SqueezeExcitation(8, 2, act_layer=torch.nn.SiLU), torch.randn(2, 8, 4, 4)
    hidden = torch.nn.functional.silu(module.fc1(x.mean((2, 3), keepdim=True)))
    torch.testing.assert_close(module(x), x * module.fc2(hidden).sigmoid())


@pytest.mark.parametrize('reduction', [0, 9])
def test_reduction_must_leave_a_channel(reduction):
    with pytest.raises(ValueError, match=f'reduction {reduction} leaves none of 8 channels'):
        SqueezeExcitation(8, reduction)
