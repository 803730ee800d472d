"""LITv2: what differs between its variants and dense forms, and sizes that the authors' classifier does not take."""

import pytest
import timm
import torch

from ops import HiLoAttention
from ops.conv.deformable_merging import DeformablePatchConv2d
from zoo.mlp import DepthwiseMlp

SHORT = dict(depths=(1, 1, 1, 1), embed_dim=32, num_heads=(1, 2, 4, 8), num_classes=3)


def heads(model):
    return [(m.window_size, m.hi_heads, m.lo_heads) for m in model.modules() if isinstance(m, HiLoAttention)]


@pytest.mark.parametrize(
    ('name', 'stage_2'),
    [
        ('litv2_s_alpha00', (2, 12, 0)),
        ('litv2_s_alpha02', (2, 10, 2)),
        ('litv2_s_alpha04', (2, 8, 4)),
        ('litv2_s_alpha05', (2, 6, 6)),
        ('litv2_s_alpha07', (2, 4, 8)),
        ('litv2_s_alpha09', (2, 2, 10)),
        ('litv2_s_alpha10', (2, 0, 12)),
        ('litv2_s', (2, 2, 10)),
    ],
)
def test_heads_of_the_published_variants(name, stage_2):
    assert heads(timm.create_model(name, device='meta')) == [stage_2] * 6 + [(1, 0, 24)] * 2


def test_weights_are_independent_of_the_windows():
    model = timm.create_model('litv2_s', **SHORT).eval()
    wide = timm.create_model('litv2_s', local_ws=(0, 0, 4, 1), **SHORT).eval()
    wide.load_state_dict(model.state_dict())
    assert [window for window, *_ in heads(wide)] == [4, 1]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(wide(x), model(x))


def test_odd_maps_lose_their_last_row_and_column():
    model = timm.create_model('litv2_s', features_only=True, out_norms=(1, 2, 3), **SHORT).eval()
    with torch.no_grad():
        sizes = [tuple(x.shape[2:]) for x in model(torch.randn(1, 3, 75, 49))]
    assert sizes == [(19, 13), (9, 6), (4, 3), (2, 1)]


@pytest.mark.parametrize('size', [(1, 1), (5, 40), (33, 17)])
def test_images_below_32_pixels(size):
    model = timm.create_model('litv2_s', **SHORT).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, *size)).isfinite().all()


def test_starts_as_the_authors_do():
    model = timm.create_model('litv2_s_alpha05')
    for module in model.modules():
        if isinstance(module, DepthwiseMlp):
            assert module.conv.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
            assert not module.conv.bias.any()
            assert module.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, DeformablePatchConv2d):
            bound = module.weight[0].numel() ** -0.5
            assert bound * 0.98 < module.weight.abs().max() <= bound
            assert not module.offset.weight.any()
            assert not module.offset.bias.any()
