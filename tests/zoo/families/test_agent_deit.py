"""Agent-DeiT: which blocks have agents, and weights of another image size."""

import pytest
import timm
import torch
from torch.nn import functional as F

from ops import AgentAttention, GlobalAttention

SMALL = dict(embed_dim=16, num_heads=2, depth=3, num_classes=3)


def tiny(**options):
    return timm.create_model('agent_deit_tiny_patch16_224', **{**SMALL, **options}).eval()


def test_the_base_size_has_agents_in_its_first_blocks_alone():
    model = timm.create_model('agent_deit_base_patch16_224', device='meta')
    mixers = [type(stage.blocks[0].mixer) for stage in model.stages]
    assert mixers == [AgentAttention] * 4 + [GlobalAttention] * 8
    assert {stage.blocks[0].mixer.core.agent_num for stage in model.stages[:4]} == {81}


def test_compiles_for_any_size_once_a_second_one_is_seen():
    model = tiny(depth=1)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        for size in ((96, 96), (128, 100), (160, 200)):
            x = torch.randn(1, 3, *size)
            with torch.compiler.set_stance('fail_on_recompile' if size[0] == 160 else 'default'):
                torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize('size', [(256, 256), (160, 288)], ids=str)
def test_weights_of_another_image_size_are_resized_as_the_authors_do(size):
    model = tiny()
    state = {key: torch.randn_like(tensor) for key, tensor in model.state_dict().items()}
    overlay = dict(state_dict=state, num_classes=3)
    other = tiny(img_size=size, pretrained=True, pretrained_cfg_overlay=overlay)
    grid = (size[0] // 16, size[1] // 16)
    places = state['stem.embed.pos_embed'][:, 1:].reshape(1, 14, 14, 16).permute(0, 3, 1, 2)
    places = F.interpolate(places, size=grid, mode='bicubic', align_corners=False).flatten(2).mT
    found = other.stem.embed.pos_embed
    torch.testing.assert_close(found, torch.cat([state['stem.embed.pos_embed'][:, :1], places], dim=1))
    rows = state['stages.1.blocks.0.mixer.core.ha_bias'][0, :, :, 0].mT
    rows = F.interpolate(rows, size=grid[0], mode='linear', align_corners=False).mT[None, :, :, None]
    torch.testing.assert_close(other.stages[1].blocks[0].mixer.core.ha_bias.data, rows)
    x = torch.randn(1, 3, *size)
    model.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-5)
        model.set_input_size(size)
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-5)


def test_positions_and_class_token_do_not_decay():
    assert tiny().no_weight_decay() == {'stem.embed.cls_token', 'stem.embed.pos_embed'}


def test_positions_that_no_square_map_has_are_refused():
    state = {**tiny().state_dict(), 'stem.embed.pos_embed': torch.zeros(1, 9, 16)}
    with pytest.raises(ValueError, match=r'pos_embed of shape \(1, 9, 16\) cannot be resized to \(1, 197, 16\)'):
        tiny(pretrained=True, pretrained_cfg_overlay=dict(state_dict=state, num_classes=3))
