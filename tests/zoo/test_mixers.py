"""Any operator in any place: by name, in either layout, and as the mixer of a whole backbone."""

import pytest
import timm
import torch

from ops.registry import NCHW, NHWC, OPS
from zoo import build_mixer


@pytest.mark.parametrize('name', OPS)
def test_an_operator_takes_the_layout_that_is_asked_for(name):
    torch.manual_seed(0)
    last = build_mixer(name, 32, 4).eval()
    torch.manual_seed(0)
    first = build_mixer(name, 32, 4, layout=NCHW).eval()
    x = torch.randn(2, 6, 7, 32)
    with torch.no_grad():
        expected = last(x)
        given = first(x.permute(0, 3, 1, 2))
    assert expected.shape == x.shape
    torch.testing.assert_close(given, expected.permute(0, 3, 1, 2))


def test_options_reach_the_operator():
    assert build_mixer('na', 64, kernel_size=5, dilation=2).kernel_size == (5, 5)
    assert build_mixer('na', 64).num_heads == 2
    assert build_mixer('na', 64, 4).num_heads == 4


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(name='nat', dim=32), ValueError, "'nat'.*na"),
        (dict(name='na', dim=32, layout='NLC'), ValueError, "'NLC'"),
        (dict(name='na', dim=32, kernel=3), TypeError, 'kernel; it has.*kernel_size'),
        (dict(name='na', dim=32, num_heads=5), ValueError, '32.*5'),
    ],
)
def test_mistakes_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        build_mixer(**arguments, **({} if 'layout' in arguments else dict(layout=NHWC)))


@pytest.mark.parametrize('name', OPS)
def test_a_backbone_of_every_operator_learns_everywhere(name):
    model = timm.create_model('mixer_pico', mixer=name, embed_dim=32, head_dim=16, num_classes=3)
    logits = model(torch.randn(2, 3, 32, 40))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('size', ['pico', 'tiny', 'small', 'base'])
def test_every_operator_fits_every_size(size):
    depths = (1, 1, 1) if size == 'pico' else (1, 1, 1, 1)
    for name in OPS:
        model = timm.create_model(f'mixer_{size}', mixer=name, depths=depths, device='meta')
        assert model(torch.empty(2, 3, 64, 64, device='meta')).shape == (2, 1000)


def test_a_mixer_may_have_its_own_number_of_heads():
    model = timm.create_model('mixer_pico', mixer={'name': 'na', 'num_heads': 8}, device='meta')
    assert {stage.blocks[0].mixer.num_heads for stage in model.stages} == {8}


def test_stages_and_blocks_take_their_own_operators():
    choice = ['na', ['attention', {'name': 'na', 'kernel_size': 3}], {'name': 'attention', 'qkv_bias': False}]
    model = timm.create_model('mixer_pico', mixer=choice)
    kinds = [[type(block.mixer).__name__ for block in stage.blocks] for stage in model.stages]
    assert kinds[1] == ['GlobalAttention', 'NeighborhoodAttention2D', 'GlobalAttention']
    assert model.stages[1].blocks[1].mixer.kernel_size == (3, 3)
    assert model.stages[2].blocks[0].mixer.qkv.bias is None


def test_position_tables_have_the_size_of_the_stage():
    model = timm.create_model('mixer_tiny', mixer='attention_rpb', img_size=(64, 96), device='meta')
    assert [tuple(stage.blocks[0].mixer.rpb.shape[1:]) for stage in model.stages] == [
        (31, 47),
        (15, 23),
        (7, 11),
        (3, 5),
    ]


@pytest.mark.parametrize('mixer', [['na', 'na'], 'nat', [[], 'na', 'na'], [{'kernel_size': 3}, 'na', 'na']])
def test_a_wrong_choice_is_refused(mixer):
    with pytest.raises(ValueError, match='mixer'):
        timm.create_model('mixer_pico', mixer=mixer)


def test_a_wrong_option_is_refused_with_those_that_exist():
    with pytest.raises(TypeError, match='windowsize; it has.*kernel_size'):
        timm.create_model('mixer_pico', mixer={'name': 'na', 'windowsize': 3})
