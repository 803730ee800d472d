"""BiFormer and BiFormer-STL: regions of dense models, both layouts, sizes of images, and whom a position looks at."""

import pytest
import timm
import torch

import checkpoints
from ops import BiLevelRoutingAttention, DenseLePEAttention
from zoo import profile
from zoo.visualize.attention import attention_maps, read_attention

SHORT = dict(depths=(1, 1, 1, 1), num_classes=3)


def mixers(model):
    return [block.mixer for stage in model.stages for block in stage.blocks]


def test_regions_and_heads_of_the_released_models():
    tiny, base = (mixers(timm.create_model(name, device='meta')) for name in ('biformer_tiny', 'biformer_base'))
    assert [(m.n_win, m.topk, m.num_heads) for m in tiny[:5:2]] == [((7, 7), 1, 2), ((7, 7), 4, 4), ((7, 7), 16, 8)]
    assert [m.num_heads for m in base if isinstance(m, BiLevelRoutingAttention)] == [3] * 4 + [6] * 4 + [12] * 18
    # heads of 96 channels, scaled by them; elsewhere all channels of the stage count
    assert {(m.num_heads, m.scale) for m in base if isinstance(m, DenseLePEAttention)} == {(8, 96**-0.5)}
    assert base[0].scale == 96**-0.5


@pytest.mark.parametrize('size', [(1, 1), (5, 40), (75, 49), (224, 64)])
@pytest.mark.parametrize('name', ['biformer_tiny', 'biformer_stl', 'biformer_stl_nchw'])
def test_any_image(name, size):
    model = timm.create_model(name, embed_dim=32, **SHORT).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, *size)).isfinite().all()


def test_dense_models_have_more_regions_and_norms_on_the_side():
    model = timm.create_model('biformer_tiny', embed_dim=32, n_win=16, **SHORT).eval()
    dense = timm.create_model(
        'biformer_tiny', embed_dim=32, n_win=16, features_only=True, out_norms=True, **SHORT
    ).eval()
    theirs = {f'extra_norms.{key[10:]}': value for key, value in dense.model.state_dict().items() if 'out_norm' in key}
    dense.load_state_dict({**model.state_dict(), **theirs})
    assert {norm.eps for norm in dense.model.out_norms.values()} == {1e-6}
    x = torch.randn(1, 3, 72, 40)
    with torch.no_grad():
        plain = model.forward_intermediates(x, intermediates_only=True)
        for got, expected in zip(dense(x), plain):
            mean, variance = expected.mean(1, keepdim=True), expected.var(1, keepdim=True, correction=0)
            torch.testing.assert_close(got, (expected - mean) / (variance + 1e-6).sqrt(), rtol=1e-3, atol=1e-4)


def test_options_of_the_routing():
    routing = dict(soft_routing=True, diff_routing=True, param_routing=True, kv_downsample_mode='avgpool')
    model = timm.create_model('biformer_tiny', embed_dim=32, routing=routing, **SHORT)
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert model.stages[1].blocks[0].mixer.router.weight.grad.any()
    renamed = checkpoints.remap_keys({'stages.1.0.attn.router.emb.bias': torch.ones(2)}, model.key_rules)
    assert list(renamed) == ['stages.1.blocks.0.mixer.router.bias']


def test_attention_is_counted_over_the_chosen_regions():
    model = timm.create_model('biformer_tiny', depths=(1, 1, 1, 1), device='meta')
    counted = profile.count_macs(model, (3, 224, 224))
    positions, keys, dim = 14 * 14, 16 * 4, 256
    mixer = positions * (4 * dim * dim + 25 * dim + 2 * keys * dim) + 49 * 49 * dim
    assert counted['stages.2.blocks.0.mixer'] == mixer


def test_a_position_looks_at_the_regions_of_its_routes():
    torch.manual_seed(0)
    model = timm.create_model('biformer_tiny', embed_dim=32, **SHORT).eval()
    maps = attention_maps(model, torch.randn(1, 3, 224, 224), (100, 50))
    assert [entry.name for entry in maps] == [f'stages.{i}.blocks.0.mixer' for i in range(4)]
    for entry, topk in zip(maps, (1, 4, 16, 49)):
        torch.testing.assert_close(entry.weights.sum((1, 2)), torch.ones(len(entry.weights)))
        side = entry.weights.shape[1] // 7
        regions = entry.weights.unflatten(1, (7, side)).unflatten(3, (7, side)).sum((0, 2, 4))
        assert (regions > 0).sum() == topk


@pytest.mark.parametrize('topk', [2, -1])
def test_weights_that_are_read_make_the_output(topk):
    mixer = BiLevelRoutingAttention(8, 2, n_win=2, topk=topk, side_dwconv=0)
    x = torch.randn(1, 5, 4, 8)
    with torch.no_grad():
        values = mixer.qkv(x)[..., 16:].unflatten(-1, (2, 4))
        padding = mixer.qkv.bias[16:].unflatten(-1, (2, 4))
        for query in ((0, 0), (4, 3)):
            weights = read_attention(mixer, x, query)
            missing = (1 - weights.sum((1, 2)))[:, None] * padding
            expected = torch.einsum('nhw,hwnd->nd', weights, values[0]) + missing
            torch.testing.assert_close(mixer(x)[0][query], mixer.proj(expected.flatten()))


def test_weights_of_pooled_keys_are_refused():
    mixer = BiLevelRoutingAttention(8, 2, kv_downsample_mode='avgpool')
    with pytest.raises(ValueError, match='pooled'):
        read_attention(mixer, torch.randn(1, 7, 7, 8), (0, 0))
