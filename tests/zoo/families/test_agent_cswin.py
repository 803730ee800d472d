"""Agent-CSWin: which attention stands where, and sizes that the authors' classifier does not take."""

import pytest
import timm
import torch

from ops import CrossShapedAgentAttention, CrossShapedWindowAttention
from zoo.families.agent_cswin import VARIANTS

SHORT = dict(depths=(1, 1, 2, 1), embed_dim=16, num_heads=(2, 2, 4, 4), num_classes=3)


def mixers(model):
    return [block.mixer for stage in model.stages for block in stage.blocks]


@pytest.mark.parametrize('name', VARIANTS)
def test_agents_see_the_whole_map_and_stripes_follow(name):
    model, scale = timm.create_model(name, device='meta', **SHORT), 1 if name.endswith('224') else 384 / 224
    kinds = [CrossShapedAgentAttention] * 2 + [CrossShapedWindowAttention] * 3
    assert [type(mixer) for mixer in mixers(model)] == kinds
    stripes = [[branch.stripe for branch in mixer.branches] for mixer in mixers(model)]
    width = round(7 * scale)
    assert stripes == [[(None, None)]] * 2 + [[(None, width), (width, None)]] * 2 + [[(None, None)]]
    assert [mixer.branches[0].ha_bias.shape[2] for mixer in mixers(model)[:2]] == [56 * scale, 28 * scale]


def test_agents_in_stripes_and_a_mixed_stage():
    model = timm.create_model('agent_cswin_tiny_224', attn_type='AAMA1', agent_split_sizes=(1, 2, 7, None), **SHORT)
    assert [len(mixer.branches) for mixer in mixers(model)] == [2, 2, 2, 2, 1]
    assert [isinstance(mixer, CrossShapedAgentAttention) for mixer in mixers(model)] == [True, True, True, False, True]
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 97, 64)).isfinite().all()


def test_weights_of_another_size_are_resized_as_at_run_time():
    model = timm.create_model('agent_cswin_tiny_224', **SHORT).eval()
    other = timm.create_model(
        'agent_cswin_tiny_224',
        img_size=(160, 96),
        pretrained=True,
        pretrained_cfg_overlay=dict(state_dict=model.state_dict()),
        **SHORT,
    ).eval()
    assert [mixer.branches[0].wa_bias.shape[3] for mixer in mixers(other)[:2]] == [24, 12]
    x = torch.randn(1, 3, 160, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x))
