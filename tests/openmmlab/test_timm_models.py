"""Backbones of timm as their authors' detectors have them: norms of the outputs, Swin's padding, the authors' names."""

import pytest
import torch
import torch.nn.functional as F

from tests.openmmlab import layouts
from zoo.openmmlab import timm_models
from zoo.openmmlab.backbone import ZooBackbone

SWIN = dict(name='swin_tiny_patch4_window7_224', strict_img_size=False, always_partition=True)


def small_swin(**options):
    torch.manual_seed(0)
    return ZooBackbone(**SWIN, embed_dim=8, depths=(2, 1, 1, 1), num_heads=(2, 2, 2, 2), **options)


@pytest.mark.parametrize(('name', 'eps'), [('swin_tiny_patch4_window7_224', 1e-5), ('convnext_atto', 1e-6)])
def test_maps_are_normalised(name, eps):
    options = dict(SWIN if 'swin' in name else {}, name=name, depths=(1, 1, 1, 1))
    plain, normed = ZooBackbone(**options).eval(), ZooBackbone(**options, out_norms=(0, 2)).eval()
    assert normed.load_state_dict(plain.state_dict(), strict=False).missing_keys == [
        f'features.model.out_norms.{level}.{part}' for level in (0, 2) for part in ('weight', 'bias')
    ]
    assert 'out_norms.2.bias' in normed.state_dict()
    with torch.no_grad():
        for norm in normed.network.out_norms.values():
            norm.weight.uniform_(1, 2), norm.bias.uniform_(1, 2)
        x = torch.randn(1, 3, 64, 64)
        expected, maps = plain(x), normed(x)
        for level in (0, 2):
            norm = normed.network.out_norms[str(level)]
            nhwc = expected[level].permute(0, 2, 3, 1)
            wanted = F.layer_norm(nhwc, nhwc.shape[-1:], norm.weight, norm.bias, eps).permute(0, 3, 1, 2)
            torch.testing.assert_close(maps[level], wanted)
    assert all(torch.equal(maps[level], expected[level]) for level in (1, 3))


def test_norms_stand_for_the_chosen_maps_and_are_trained():
    backbone = small_swin(out_norms=True, out_indices=(1,), frozen_stages=1, with_cp=True).train()
    assert list(backbone.network.out_norms) == ['1']
    backbone(torch.randn(2, 3, 30, 41))[0].square().sum().backward()
    assert all(p.grad is not None for p in backbone.network.out_norms.parameters())


def test_norms_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r'out_norms names stages of 0 to 3, got \(5,\)'):
        small_swin(out_norms=(5,))
    with pytest.raises(ValueError, match='FeatureListNet has no forward_intermediates'):
        ZooBackbone('resnet18', out_norms=True, feature_cls='list')


def windows_of(length, shift):
    """First and last positions of the windows of 7 after a shift, where the map ends with its padding."""
    first = [(0, shift)] if shift else []
    return first + [(start, min(start + 7, length)) for start in range(shift, length, 7)]


@pytest.mark.parametrize('shift', [0, 3])
@pytest.mark.parametrize('size', [(7, 14), (10, 9), (3, 16)])
def test_swin_pads_before_it_shifts(size, shift):
    """Each window of the padded map alone, from the equation."""
    torch.manual_seed(0)
    options = dict(window_size=7, shift_size=shift, always_partition=True, dynamic_mask=True)
    block = timm_models.PaddedBlock(8, size, num_heads=2, **options).double()
    attn = block.attn
    torch.nn.init.normal_(attn.relative_position_bias_table)
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    height, width = (-(-n // 7) * 7 for n in size)
    padded = F.pad(x, (0, 0, 0, width - size[1], 0, height - size[0]))
    q, k, v = attn.qkv(padded).reshape(2, height, width, 3, 2, 4).unbind(3)
    expected = torch.zeros(2, height, width, 2, 4, dtype=torch.float64)
    for top, bottom in windows_of(height, shift):
        for left, right in windows_of(width, shift):
            i, j = torch.cartesian_prod(torch.arange(top, bottom), torch.arange(left, right)).unbind(1)
            between = (i[:, None] - i + 6) * 13 + j[:, None] - j + 6
            scores = torch.einsum('bqhd,bkhd->bhqk', q[:, i, j], k[:, i, j]) / 2
            weights = (scores + attn.relative_position_bias_table[between].permute(2, 0, 1)).softmax(-1)
            expected[:, i, j] = torch.einsum('bhqk,bkhd->bqhd', weights, v[:, i, j])
    expected = attn.proj(expected.flatten(-2))[:, : size[0], : size[1]]
    torch.testing.assert_close(block._attn(x), expected)


def test_swin_takes_images_of_any_size():
    shapes = [tuple(m.shape[1:]) for m in small_swin()(torch.randn(1, 3, 27, 41))]
    assert shapes == [(8, 7, 11), (16, 4, 6), (32, 2, 3), (64, 1, 2)]


def test_the_authors_names_go_where_they_belong():
    swin = ZooBackbone(**SWIN, out_norms=True).network
    given = {key.removeprefix('backbone.'): torch.empty(s, device='meta') for key, s in layouts.swin_tiny().items()}
    places = {id(tensor): key for key, tensor in timm_models.renamed(swin, given).items()}
    pairs = {
        'layers.0.downsample.norm.weight': 'layers.1.downsample.norm.weight',
        'layers.2.downsample.reduction.weight': 'layers.3.downsample.reduction.weight',
        'layers.3.blocks.1.attn.qkv.bias': 'layers.3.blocks.1.attn.qkv.bias',
        'norm2.bias': 'out_norms.2.bias',
    }
    assert {old: places[id(given[old])] for old in pairs} == pairs
    own = swin.state_dict()
    assert timm_models.renamed(swin, own) == own


def test_a_checkpoint_of_another_backbone_stays_as_it_is():
    convnext = ZooBackbone('convnext_atto', depths=(1, 1, 1, 1)).network
    foreign = {'levels.0.attn.qkv.weight': torch.ones(3, 1), 'norm0.weight': torch.ones(3)}
    assert timm_models.renamed(convnext, foreign) == foreign
