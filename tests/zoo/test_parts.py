"""Parts of blocks against the same in plain operators."""

import pytest
import torch
from timm.layers import DropPath
from timm.layers import LayerNorm2d as TimmLayerNorm2d
from timm.models._features_fx import create_feature_extractor
from torch import nn

from zoo.norm import LayerNorm2d
from zoo.parts import PatchMerging, PreNormBlock, add, dropped


def plain_block(block, x):
    x = x + block.drop_path1(block.scale1(block.mixer(block.norm1(x))))
    return x + block.drop_path2(block.scale2(block.mlp(block.norm2(x))))


@pytest.mark.parametrize('size', [4, 56])
@pytest.mark.parametrize('drop_path', [0.0, 0.5])
@pytest.mark.parametrize('layer_scale', [None, 0.3])
def test_block_is_the_sum_of_its_branches(size, drop_path, layer_scale):
    """Of 56 x 56 positions layer norms and sums are computed together, of few they are not."""
    block = PreNormBlock(96, nn.Linear(96, 96), nn.Linear(96, 96), layer_scale, drop_path)
    x = torch.randn(3, size, size, 96, requires_grad=True)
    results = []
    for run in (block, lambda x: plain_block(block, x)):
        torch.manual_seed(1)
        out = run(x)
        results.append([out, *torch.autograd.grad(out.square().mean(), [x, *block.parameters()])])
    for ours, plain in zip(*results, strict=True):
        assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize('drop_path', [DropPath(0.5), DropPath(0.5, scale_by_keep=False), DropPath(1.0), DropPath(0.0)])
@pytest.mark.parametrize('training', [False, True])
def test_paths_are_dropped_as_by_timm(drop_path, training):
    x, branch, drop_path = torch.randn(6, 2, 5), torch.randn(6, 2, 5), drop_path.train(training)
    torch.manual_seed(2)
    found = add(x, *dropped(drop_path, branch))
    torch.manual_seed(2)
    torch.testing.assert_close(found, x + drop_path(branch))


def test_blocks_with_dropped_paths_are_traced_by_fx():
    """As timm traces, once in training; there its `DropPath` loses `div_`, as nothing takes its result."""
    block = PreNormBlock(16, nn.Linear(16, 16), nn.Linear(16, 16), drop_path=0.5)
    block.drop_path1.scale_by_keep = block.drop_path2.scale_by_keep = False
    model, x = nn.Sequential(block, nn.ReLU()), torch.randn(4, 3, 16)
    traced = create_feature_extractor(model, {'1': 'last'})
    for training in (True, False):
        model.train(training), traced.train(training)
        torch.manual_seed(3)
        expected = model(x)
        torch.manual_seed(3)
        torch.testing.assert_close(traced(x)['last'], expected)


def test_a_watched_drop_path_is_called():
    drop_path, seen = DropPath(0.5), []
    drop_path.register_forward_hook(lambda *_: seen.append('hook'))
    branch, factors = dropped(drop_path, torch.ones(4, 3))
    assert seen == ['hook']
    assert factors is None
    assert branch.unique().tolist() in ([0.0, 2.0], [0.0], [2.0])


@pytest.mark.parametrize('size', [(4, 6), (5, 7)])
def test_corners_are_merged_in_the_order_of_swin(size):
    merging, x = PatchMerging(3), torch.randn(2, 3, *size)
    padded = nn.functional.pad(x, (0, size[1] % 2, 0, size[0] % 2)).permute(0, 2, 3, 1)
    corners = [padded[:, top::2, left::2] for left in (0, 1) for top in (0, 1)]
    expected = merging.reduction(merging.norm(torch.cat(corners, -1))).permute(0, 3, 1, 2)
    torch.testing.assert_close(merging(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize('size', [3, 64])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_norm_of_maps_is_that_of_timm(size, layout):
    ours, theirs = LayerNorm2d(96), TimmLayerNorm2d(96)
    x = torch.randn(2, 96, size, size).contiguous(memory_format=layout)
    torch.testing.assert_close(ours(x), theirs(x))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.eps == theirs.eps
