"""Channel attention with earlier stages against its formula, one channel at a time."""

import pytest
import torch

from ops.gate.pkcam import PKCAM
from tests.ops.gate.conftest import assert_is, lively


def along_channels(conv, vector):
    """(B, C) -> (B, C): a convolution that sees zeros beside the first and last channel."""
    weight = conv.weight.flatten()
    pad, dim = len(weight) // 2, vector.shape[1]
    padded = torch.nn.functional.pad(vector, (pad, pad))
    return torch.stack([padded[:, c : c + len(weight)] @ weight for c in range(dim)], 1)


def test_alone_is_a_residual_channel_attention():
    module = lively(PKCAM(8, kernel_size=3))
    assert [name for name, _ in module.named_parameters()] == ['conv_local.weight']

    def formula(x):
        return x * (1 + along_channels(module.conv_local, x.mean((2, 3))).sigmoid())[:, :, None, None]

    assert_is(module, formula, torch.randn(2, 8, 3, 4))


def test_is_the_formula_with_its_gradients():
    module = lively(PKCAM(8, num_previous=2))
    # A rectifier that stays awake.
    torch.nn.init.uniform_(module.stage_fusion.weight, 0.1, 1.0)
    earlier = [torch.rand(2, 4).double(), torch.rand(2, 8).double()]

    def formula(x):
        mean = x.mean((2, 3))
        local = along_channels(module.conv_local, mean).sigmoid()
        tall, wide, own = module.stage_fusion.weight.flatten()
        fused = [tall * earlier[0][:, c % 4] + wide * earlier[1][:, c] + own * mean[:, c] for c in range(8)]
        shared = along_channels(module.conv_global, torch.stack(fused, 1).relu()).sigmoid()
        near, far = module.out_fusion.weight.flatten()
        return x * (1 + (near * local + far * shared).sigmoid())[:, :, None, None]

    class Given(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = module

        def forward(self, x):
            return self.gate(x, earlier)

    assert_is(Given(), formula, torch.rand(2, 8, 3, 4))


def test_first_block_of_a_stage_has_the_layers_and_does_not_use_them():
    module = PKCAM(8, num_previous=2)
    alone = PKCAM(8)
    alone.load_state_dict({'conv_local.weight': module.conv_local.weight})
    x = torch.randn(2, 8, 3, 4)
    torch.testing.assert_close(module(x), alone(x))


def test_impossible_arguments():
    with pytest.raises(ValueError, match='num_previous=-1'):
        PKCAM(8, -1)
    with pytest.raises(ValueError, match='1 previous vectors are given, num_previous is 2'):
        PKCAM(8, 2)(torch.randn(1, 8, 3, 3), [torch.randn(1, 8)])
