import math

import pytest
import timm
import torch
from torch import nn

import checkpoints
import zoo
from ops.window.neighborhood import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D
from zoo import profile

QUOTED = [
    entry
    for family in checkpoints.families()
    for tags in checkpoints.catalogue(family).values()
    for entry in tags.values()
    if entry.paper_flops
]


@pytest.mark.parametrize('name', ['nat_mini', 'dinat_s_tiny', 'vitrpb_small', 'nat_isotropic_small'])
def test_record_is_what_is_counted(name):
    counted = profile.profile(name)
    assert (counted.parameters, counted.macs) == profile.recorded()[name]


@pytest.mark.parametrize('entry', QUOTED, ids=lambda entry: entry.name)
def test_record_agrees_with_the_papers(entry):
    parameters, macs = profile.recorded()[entry.model]
    # The papers round to a tenth.
    assert macs / 1e9 == pytest.approx(entry.paper_flops, rel=0.02, abs=0.05)
    assert parameters / 1e6 == pytest.approx(entry.paper_params, abs=0.5 + 0.01 * entry.paper_params)


def test_every_model_is_recorded():
    assert list(profile.recorded()) == zoo.list_models()


def test_convolutions_and_linear_layers_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.Conv2d(8, 8, 5, groups=4, padding=2), nn.Flatten())
    model.append(nn.Linear(8 * 16 * 16, 10))
    counted = profile.profile(model, 32)
    assert counted.macs == 256 * 8 * 3 * 9 + 256 * 8 * 2 * 25 + 8 * 256 * 10
    assert [part.macs for part in counted.parts] == [256 * 8 * 27, 256 * 8 * 50, 20480]
    assert counted.parameters == 216 + 8 * 2 * 25 + 8 + 20480 + 10


@pytest.mark.parametrize(
    ('module', 'size', 'kernel', 'dilation', 'computed'),
    [
        (NeighborhoodAttention1D, (20,), (5,), 2, (20,)),
        (NeighborhoodAttention2D, (9, 12), (3, 5), 2, (9, 12)),
        (NeighborhoodAttention2D, (6, 16), (3, 3), 3, (9, 16)),
        (NeighborhoodAttention3D, (4, 5, 6), (3, 3, 3), 1, (4, 5, 6)),
    ],
)
@pytest.mark.parametrize('backend', ['blocked', 'reference'])
def test_attention_is_counted_by_its_definition(module, size, kernel, dilation, computed, backend):
    dim = 8
    model = nn.Sequential(module(dim, 2, kernel, dilation=dilation, backend=backend))
    macs = profile.count_macs(model, (*size, dim))
    projections = math.prod(computed) * 3 * dim**2 + math.prod(size) * dim**2
    core = 2 * math.prod(computed) * math.prod(kernel) * dim
    assert macs[''] == macs['0'] == projections + core
    assert macs['0.qkv'] == math.prod(computed) * 3 * dim**2


def test_module_with_a_formula_may_be_the_whole_model():
    module = NeighborhoodAttention2D(8, 2, 3)
    assert profile.count_macs(module, (9, 12, 8)) == {
        '': 108 * (4 * 8**2 + 2 * 9 * 8),
        'qkv': 108 * 3 * 8**2,
        'proj': 108 * 8**2,
    }


def test_dense_attention_of_timm():
    counted = profile.profile('vit_tiny_patch16_224')
    tokens, dim = 197, 192
    block = tokens * 12 * dim**2 + 2 * tokens**2 * dim
    assert counted.macs == 12 * block + 196 * 768 * dim + dim * 1000


def test_model_is_left_alone():
    model = timm.create_model('nat_pico').train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = profile.profile(model, (40, 33))
    assert first.input_size == (3, 40, 33)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert next(model.parameters()).device.type == 'cpu'


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert profile.count_parameters(model) == 16 + 8
    assert profile.count_macs(model, (5, 4))[''] == 2 * 5 * 16


def test_impossible_size_names_model_and_size():
    with pytest.raises(ValueError, match=r'MaxxVit cannot take an image of \(3, 100, 100\)'):
        profile.profile('maxvit_tiny_tf_224', 100)
