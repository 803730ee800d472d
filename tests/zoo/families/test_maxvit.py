"""What is MaxViT's own: windows of other sizes, TensorFlow's stochastic depth, the head, and names beside timm's."""

import pytest
import timm
import torch
from torch.nn import functional as F

import zoo
from checkpoints import CheckpointError

SMALL = dict(depths=(1, 1, 2, 1), embed_dim=32, stem_dim=16, num_classes=5)
TINY = 'zoo_maxvit_tiny_tf_224'


def small(**options):
    return timm.create_model(TINY, **{**SMALL, **options}).eval()


def loaded_into(weights, **options):
    return small(pretrained=True, pretrained_cfg_overlay=dict(state_dict=weights, num_classes=5), **options)


def test_timm_keeps_its_own_models():
    assert 'maxvit_tiny_tf_224' not in zoo.list_models()
    assert type(timm.create_model('maxvit_tiny_tf_224', device='meta')).__module__ == 'timm.models.maxxvit'


def test_weights_of_the_port_give_its_numbers():
    options = dict(embed_dim=(32, 64, 128, 256), depths=(1, 1, 2, 1), stem_width=16, head_hidden_size=256)
    port = timm.create_model('maxvit_tiny_tf_224', img_size=96, num_classes=5, **options).eval()
    ours = loaded_into(port.state_dict(), window_size=3)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), port(x))
        ours.load_state_dict(port.state_dict())  # the port's keys, outside timm's loading


@pytest.mark.parametrize('sizes', [dict(window_size=5), dict(window_size=(4, 6), grid_size=9)], ids=str)
def test_other_windows_take_resized_tables(sizes):
    source = small().state_dict()
    target = loaded_into(source, **sizes)
    for part, key in (('window_size', 'attn_block'), ('grid_size', 'attn_grid')):
        side = sizes.get(part, sizes['window_size'])
        rows, columns = (side, side) if isinstance(side, int) else side
        name = f'stages.0.blocks.0.{key}.mixer.rpb'
        expected = F.interpolate(source[name][None], size=(2 * rows - 1, 2 * columns - 1), mode='bilinear')[0]
        assert torch.equal(target.state_dict()[name], expected)
    assert target(torch.randn(1, 3, 50, 70)).shape == (1, 5)


def test_windows_keep_their_size_on_other_images():
    model = small()
    model.set_input_size((384, 256))
    assert model.stages[0].blocks[0].attn_grid.mixer.rpb.shape == (1, 13, 13)


def test_the_last_block_stays_below_the_full_drop_path_rate():
    blocks = [block for stage in small(drop_path_rate=0.5).stages for block in stage.blocks]
    rates = [getattr(block.attn_grid.drop_path2, 'drop_prob', 0.0) for block in blocks]
    assert rates == pytest.approx([0.5 * i / 5 for i in range(5)])
    assert [getattr(block.conv.drop_path, 'drop_prob', 0.0) for block in blocks] == pytest.approx(rates)


def test_the_head_has_a_hidden_layer():
    model, x = small(), torch.randn(2, 3, 64, 64)
    maps = model.forward_features(x)
    head = model.head
    hidden = head.pre_logits.fc(F.layer_norm(maps.mean((2, 3)), (256,), head.norm.weight, head.norm.bias)).tanh()
    torch.testing.assert_close(model.forward_head(maps, pre_logits=True), hidden)
    torch.testing.assert_close(model(x), head.fc(hidden))
    with pytest.raises(CheckpointError, match=r'head\.pre_logits'):
        loaded_into({key: value for key, value in model.state_dict().items() if 'pre_logits' not in key})


def test_dense_features_have_norms_of_their_own():
    features = small(features_only=True, out_norms=(0, 3))
    maps = features(torch.randn(1, 3, 65, 97))
    assert [tuple(f.shape[1:]) for f in maps] == [(32, 17, 25), (64, 9, 13), (128, 5, 7), (256, 3, 4)]
    assert {key.split('.')[2] for key in features.state_dict() if 'out_norms' in key} == {'0', '3'}
