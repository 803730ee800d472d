"""Agent-PVT: weights of another image size, more agents than were trained, stages without agents."""

import pytest
import timm
import torch
from torch.nn import functional as F

from ops import ReducedAgentAttention, SpatialReductionAttention

NARROW = dict(depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 2, 2), num_classes=3)


def narrow(name='agent_pvt_tiny_224', **options):
    return timm.create_model(name, **{**NARROW, **options}).eval()


def random_state(model):
    return {key: torch.randn_like(tensor) for key, tensor in model.state_dict().items()}


def test_weights_of_another_image_size_are_resized():
    state = random_state(narrow())
    overlay = dict(state_dict=state, num_classes=3)
    other = narrow('agent_pvt_tiny_256', pretrained=True, pretrained_cfg_overlay=overlay)
    places = state['stages.2.downsample.position.pos_embed'].reshape(1, 14, 14, 16).permute(0, 3, 1, 2)
    places = F.interpolate(places, size=(16, 16), mode='bilinear', align_corners=False).flatten(2).mT
    torch.testing.assert_close(other.stages[2].downsample.position.pos_embed.data, places)
    columns = F.interpolate(state['stages.0.blocks.0.mixer.core.aw_bias'][0, :, :, 0], size=64, mode='linear')
    torch.testing.assert_close(other.stages[0].blocks[0].mixer.core.aw_bias.data, columns[None, :, :, None])
    model, x = narrow(), torch.randn(1, 3, 256, 256)
    model.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-5)
        model.set_input_size(256)
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-5)


def test_as_many_agents_as_were_trained_change_nothing():
    model = narrow()
    dense = narrow(agent_shapes=((3, 3), (4, 4), (7, 7), (7, 7)))
    dense.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(dense(x), model(x))


def test_what_does_not_fill_a_patch_is_left_out():
    model, x = narrow(), torch.randn(1, 3, 71, 100)
    x[..., 68:, :] = 9
    with torch.no_grad():
        maps = model.forward_intermediates(x, intermediates_only=True)
        changed = x.clone()
        changed[..., 68:, :] = 0
        torch.testing.assert_close(model(changed), model(x))
    assert [tuple(m.shape[2:]) for m in maps] == [(17, 25), (8, 12), (4, 6), (2, 3)]


def test_stages_without_agents():
    model = narrow(agent_nums=(9, 16, None, None), sr_ratios=(2, 1, 2, 1))
    mixers = [stage.blocks[0].mixer for stage in model.stages]
    assert [type(m) for m in mixers] == [ReducedAgentAttention] * 2 + [SpatialReductionAttention] * 2
    assert [m.sr_ratio for m in mixers] == [2, 1, 2, 1]
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize('side', [1, 3, 31])
def test_an_image_smaller_than_a_patch(side):
    assert narrow()(torch.randn(1, 3, side, side)).isfinite().all()
