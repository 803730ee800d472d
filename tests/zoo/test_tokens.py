"""The skeleton of networks with a class token."""

import pytest
import timm
import torch
from timm.layers import Mlp
from torch import nn

from ops import GlobalAttention
from zoo.tokens import PlainBackbone, SequenceBlock, Tokens, tokens_to_map


def plain(**options):
    def block(index, drop_path):
        return SequenceBlock(8, GlobalAttention(8, 2), Mlp(8, 16), drop_path=drop_path, eps=1e-6)

    return PlainBackbone(embed_dim=8, depth=2, block=block, patch_size=4, img_size=16, num_classes=3, **options).eval()


def test_is_the_vision_transformer_of_timm():
    model = plain()
    theirs = timm.models.VisionTransformer(16, 4, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2, num_classes=3).eval()
    names = {'stem.conv.': 'patch_embed.proj.', 'stem.embed.': '', '.blocks.0.mixer.': '.attn.', '.blocks.0.': '.'}
    state = {}
    for key, tensor in model.state_dict().items():
        for ours, other in {**names, 'stages.': 'blocks.', 'head.fc.': 'head.'}.items():
            key = key.replace(ours, other)
        state[key] = tensor
    theirs.load_state_dict(state)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x))
        torch.testing.assert_close(model.forward_features(x), theirs.forward_features(x))
        taken, wanted = (m.forward_intermediates(x, norm=True, intermediates_only=True) for m in (model, theirs))
        torch.testing.assert_close(taken[-1], wanted[-1])


def test_map_leaves_out_the_tokens_before_it():
    x = torch.randn(2, 2 + 3 * 4, 5)
    state = tokens_to_map(Tokens(x, (3, 4)))
    assert state.shape == (2, 5, 3, 4)
    assert torch.equal(state[1, :, 1, 2], x[1, 2 + 1 * 4 + 2])


@pytest.mark.parametrize('prefix', [1, 3])
def test_pooling(prefix):
    model = plain(prefix_tokens=prefix)
    tokens = torch.randn(2, prefix + 6, 8)
    wanted = {
        'token': tokens[:, 0],
        'avg': tokens[:, prefix:].mean(1),
        'max': tokens[:, prefix:].amax(1),
        '': tokens,
    }
    for pool, pooled in wanted.items():
        model.reset_classifier(5, pool)
        torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), pooled)
        assert model.forward_head(tokens).shape == (*pooled.shape[:-1], 5)
    with pytest.raises(ValueError, match="global_pool must be one of 'token'.*'catavgmax'"):
        model.reset_classifier(5, 'catavgmax')


def test_positions_can_be_set_for_another_size():
    model = plain()
    x = torch.randn(1, 3, 23, 40)
    with torch.no_grad():
        before = model(x)
        model.set_input_size((23, 40))
        assert model.stem.embed.pos_embed.shape == (1, 1 + 6 * 10, 8)
        torch.testing.assert_close(model(x), before)


def test_compiles_and_exports():
    model = plain()
    x = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
        torch.testing.assert_close(compiled(x), model(x))
        batch = torch.export.Dim('batch', min=1, max=64)
        program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
        more = torch.cat([x, x, x])
        torch.testing.assert_close(program.module()(more), model(more))


def test_a_classifier_may_be_left_out():
    assert isinstance(plain(global_pool='avg').head.fc, nn.Linear)
    model = plain()
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 16, 16)).shape == (1, 8)
