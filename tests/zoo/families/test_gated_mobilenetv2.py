"""MobileNetV2 with gates: where the gates stand, which kernels they have, and the convolution behind the last stage."""

import timm
import torch
from torch import nn

from ops.gate.coordinate import CoordinateAttention
from tests.zoo.test_every_model import lively


def blocks_of(name: str) -> list[nn.Module]:
    return [block for stage in timm.create_model(name, device='meta').stages for block in stage.blocks]


def test_coordinate_attention_stands_on_the_expanded_map_where_there_is_one():
    first, *others = blocks_of('coordatt_mobilenetv2')
    assert isinstance(first.inner_gate, nn.Identity)
    assert isinstance(first.expand, nn.Identity)
    assert all(isinstance(block.inner_gate, CoordinateAttention) for block in others)
    assert all(block.inner_gate.conv1.in_channels == block.project.conv.in_channels for block in others)
    assert all(isinstance(block.gate, nn.Identity) for block in others)


def test_eca_looks_at_one_channel_below_96():
    kernels = {
        block.project.conv.out_channels: block.gate.conv.kernel_size[0] for block in blocks_of('eca_mobilenetv2')
    }
    assert kernels == {16: 1, 24: 1, 32: 1, 64: 1, 96: 3, 160: 3, 320: 3}


def test_kernel_of_triplet_attention():
    for name, side in {'triplet_mobilenetv2': 7, 'triplet_mobilenetv2_k3': 3}.items():
        assert {block.gate.hc.conv.kernel_size for block in blocks_of(name)} == {(side, side)}


def test_last_convolution_belongs_to_the_head():
    model = lively(timm.create_model('coordatt_mobilenetv2', num_classes=3)).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert model.forward_features(x).shape == (1, 1280, 2, 3)
        last = model.forward_intermediates(x, indices=1, intermediates_only=True)[0]
        assert last.shape == (1, 320, 2, 3)
        model.prune_intermediate_layers([4], prune_norm=True)
        assert torch.equal(model(x), last)
        model.reset_classifier(7, 'avg')
        assert model(x).shape == (1, 7)
