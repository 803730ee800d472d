"""Agent-Swin: which attention stands where, in the classifier, at other sizes and in the dense form."""

import pytest
import timm
import torch
from torch.nn import functional as F

from ops import AgentAttention, ShiftedWindowAttention, WindowAgentAttention
from zoo.parts import block_letters, resize_window_table

SHORT = dict(depths=(1, 1, 4, 2), embed_dim=32, num_heads=(1, 2, 4, 8), num_classes=3)
SHAPES = ((9, 9), (12, 12), (5, 4), (7, 7))


def mixers(model, stage):
    return [block.mixer for block in model.stages[stage].blocks]


def windows(model, stage):
    return [(m.window_size[0], m.shift_size[0]) for m in mixers(model, stage) if not isinstance(m, AgentAttention)]


def sizes_of_biases(model):
    """Rows that the biases of agents are made for."""
    return [m.core.ha_bias.shape[2] for m in model.modules() if isinstance(m, AgentAttention)]


@pytest.mark.parametrize(
    ('name', 'sizes', 'last_windows'),
    [
        ('agent_swin_tiny_224', [56, 56, 28, 28] + 6 * [14], [(7, 0), (7, 0)]),
        ('agent_swin_small_288', [72, 72, 36, 36], [(9, 0), (9, 0)]),
        ('agent_swin_base_384', [96, 96, 48, 48, 24, 24], [(12, 0), (12, 0)]),
    ],
)
def test_agents_see_the_whole_map_and_a_single_window_is_not_shifted(name, sizes, last_windows):
    model = timm.create_model(name, device='meta')
    assert sizes_of_biases(model) == sizes
    assert windows(model, 3) == last_windows


def test_every_second_block_of_windows_is_shifted():
    model = timm.create_model('agent_swin_base_384', device='meta')
    assert windows(model, 2) == 8 * [(12, 0), (12, 6)]


def test_agents_have_windows_where_the_map_is_larger():
    model = timm.create_model('agent_swin_base_224', window_size=28, **SHORT)
    assert [type(mixers(model, stage)[0]) for stage in range(2)] == [WindowAgentAttention, AgentAttention]
    model = timm.create_model('agent_swin_base_224', window_size=7, **SHORT)
    assert windows(model, 2) == [(7, 0), (7, 3)] * 2
    assert [isinstance(mixer, WindowAgentAttention) for mixer in mixers(model, 2)] == [True, True, False, False]
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 97, 64)).isfinite().all()


def test_dense_form_is_shifted_on_any_map():
    model = timm.create_model('agent_swin_base_224', agent_shapes=SHAPES, window_size=28, **SHORT)
    assert windows(model, 2) == windows(model, 3) == [(7, 0), (7, 3)]
    assert sizes_of_biases(model) == [56, 28, 14, 14]
    assert [mixers(model, stage)[0].core.agent_shape for stage in range(3)] == list(SHAPES[:3])


def test_weights_of_a_classifier_begin_a_dense_network():
    plain = timm.create_model('agent_swin_base_224', **SHORT).eval()
    options = dict(SHORT, features_only=True, out_norms=True, pretrained=True)
    overlay = dict(state_dict=plain.state_dict())
    dense = timm.create_model('agent_swin_base_224', agent_shapes=SHAPES, pretrained_cfg_overlay=overlay, **options)
    with torch.no_grad():
        sizes = [tuple(x.shape[1:]) for x in dense(torch.randn(1, 3, 75, 129))]
    assert sizes == [(32, 19, 33), (64, 10, 17), (128, 5, 9), (256, 3, 5)]


def test_weights_of_another_size_are_resized_as_the_authors_do():
    small = timm.create_model('agent_swin_base_224', **SHORT).state_dict()
    large = timm.create_model(
        'agent_swin_base_384', pretrained=True, pretrained_cfg_overlay=dict(state_dict=small), **SHORT
    ).state_dict()
    rows = 'stages.0.blocks.0.mixer.core.ah_bias'
    expected = F.interpolate(small[rows].squeeze(0).squeeze(-1), size=96, mode='linear')
    assert torch.equal(large[rows], expected[None, ..., None])
    table = 'stages.2.blocks.2.mixer.relative_position_bias_table'
    expected = F.interpolate(small[table].T.view(1, 4, 13, 13), size=(23, 23), mode='bicubic')
    torch.testing.assert_close(large[table], expected.view(4, 23 * 23).T)
    plane = 'stages.0.blocks.0.mixer.core.an_bias'
    assert torch.equal(large[plane], small[plane])


@pytest.mark.parametrize('shape', [(25, 3), (24, 2), (5, 5, 2)])
def test_tables_that_cannot_be_resized(shape):
    with pytest.raises(ValueError, match=r'\(9, 2\) cannot be resized'):
        resize_window_table(torch.zeros(9, 2), torch.Size(shape))


def test_map_of_another_size_sees_resized_biases():
    model = timm.create_model('agent_swin_tiny_224', **dict(SHORT, attn_type='AAAA')).eval()
    other = timm.create_model(
        'agent_swin_tiny_224',
        img_size=(160, 96),
        pretrained=True,
        pretrained_cfg_overlay=dict(state_dict=model.state_dict()),
        **dict(SHORT, attn_type='AAAA'),
    ).eval()
    assert sizes_of_biases(other) == [40, 20] + 4 * [10] + 2 * [5]
    x = torch.randn(1, 3, 160, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x))


def test_only_the_tables_of_windows_do_not_decay():
    model = timm.create_model('agent_swin_base_224', device='meta', **SHORT)
    tables = {
        f'{name}.relative_position_bias_table'
        for name, module in model.named_modules()
        if isinstance(module, ShiftedWindowAttention)
    }
    assert model.no_weight_decay() == tables


def test_letters_of_blocks():
    assert block_letters('AAMB2', (2, 2, 4, 2)) == ['AA', 'AA', 'AABB', 'BB']
    assert block_letters('MBM3', (2, 1, 4)) == ['AA', 'B', 'AAAB']
    assert block_letters('IS', (1, 2), 'I', 'S') == ['I', 'SS']


@pytest.mark.parametrize('attn_type', ['AAB', 'AABBB', 'AAMB', 'AAXB', 'AABB2M'])
def test_bad_patterns_of_blocks_are_refused(attn_type):
    with pytest.raises(ValueError, match=attn_type):
        timm.create_model('agent_swin_tiny_224', attn_type=attn_type)
