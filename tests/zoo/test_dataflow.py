"""What is seen of a network from outside: calls, depths, residual blocks."""

import pytest
import torch
from torch import nn

from zoo.dataflow import IMAGE, follow, is_map


class Residual(nn.Module):
    """Adds a branch of two convolutions to its input, or to a projection of it, by an operator or a function."""

    def __init__(self, dim, stride=1, project=False, cut=False):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, stride, padding=1)
        self.norm1 = nn.BatchNorm2d(dim)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.shortcut = nn.Conv2d(dim, dim, 1, stride) if project else nn.Identity()
        self.cut = cut

    def forward(self, x):
        branch = 0.5 * self.conv2(self.act(self.norm1(self.conv1(x))))
        return branch if self.cut else torch.add(self.shortcut(x), branch)


class Channels(nn.Module):
    """A perceptron over channels last, beside no residual block."""

    def __init__(self, dim):
        super().__init__()
        self.fc = nn.Linear(dim, dim)

    def forward(self, x):
        return x + self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def network():
    blocks = [Residual(8), Residual(8, 2, project=True), Residual(8, 2, cut=True), Channels(8)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1))


def test_residual_blocks_with_and_without_shortcut():
    flow = follow(network())
    assert [block.call.name for block in flow.blocks] == ['1.0', '1.1', '1.2']
    assert [block.end.name for block in flow.blocks] == ['1.0.conv2', '1.1.conv2', '1.2.conv2']
    assert [call.name for call in flow.blocks[0].branch] == ['1.0.conv1', '1.0.conv2']
    assert [call.name for call in flow.calls if call.is_depthwise] == ['1.0.conv2', '1.1.conv2', '1.2.conv2']


def test_depths_and_shapes():
    flow = follow(network())
    assert [flow.by_name[name].depth for name in ('0', '1.0', '1.0.norm1', '1', '2')] == [1, 3, 2, 8, 8]
    assert flow.by_name['1.3'].convolutions == 1
    assert flow.by_name['1.0'].output.shape == (1, 8, IMAGE[0] // 2, IMAGE[1] // 2)
    assert is_map(flow.by_name['1.3'].output)
    assert not is_map(flow.by_name['1.3.fc'].output)
    assert not is_map(flow.by_name['2'].output)


def test_what_a_convolution_passes_through():
    flow = follow(network())
    assert flow.settled(flow.by_name['1.0.conv1']).name == '1.0.act'
    assert flow.settled(flow.by_name['1.0.conv2']).name == '1.0.conv2'


def test_network_stays_as_it_is():
    model = network().train()
    model[1][1].eval()
    modes = [module.training for module in model.modules()]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    follow(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_failure_leaves_the_network_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 1)).train()
    with pytest.raises(RuntimeError):
        follow(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
