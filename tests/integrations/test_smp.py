"""Backbones of the zoo as encoders of segmentation_models_pytorch."""

import pytest
import timm
import torch
from torch.nn import functional as F

from tests.documentation import run_example
from tests.integrations.backbones import SHALLOW, equal, pretrained_nat_pico, pyramids, untouched

smp = pytest.importorskip('segmentation_models_pytorch')

PICO = dict(drop_path_rate=0.0, encoder_depth=3)
ROWS = [
    *((network, 'nat_mini', SHALLOW) for network in ('UPerNet', 'FPN', 'Unet', 'Segformer')),
    *(('UPerNet', name, SHALLOW) for name in ('agent_swin_tiny_224', 'zoo_maxvit_tiny_tf_224')),
    ('DeepLabV3Plus', 'nat_mini', dict(SHALLOW, encoder_depth=4)),
    ('DeepLabV3', 'nat_mini', dict(SHALLOW, encoder_depth=4, encoder_output_stride=16)),
    *(('DeepLabV3Plus', 'eca_resnet18', dict(SHALLOW, encoder_output_stride=s)) for s in (8, 16)),
    *((network, 'nat_pico', PICO) for network in ('UPerNet', 'Segformer', 'DeepLabV3Plus', 'DeepLabV3')),
    ('Unet', 'nat_pico', dict(PICO, decoder_channels=(64, 32, 16))),
    ('FPN', 'nat_pico', dict(PICO, upsampling=1)),
]
"""The table of the document: network, model, options."""


@pytest.fixture(scope='module')
def documented() -> dict:
    torch.manual_seed(0)
    return run_example('integrations.md', 'segmentation_models_pytorch')


def test_upernet_of_the_document_learns_and_segments(documented):
    assert torch.isfinite(documented['loss'])
    assert not untouched(documented['model'].encoder)
    assert documented['scores'].shape == (1, 11, 75, 50)


def test_weights_arrive(documented):
    assert equal(documented['model'].encoder.model.state_dict(), pretrained_nat_pico())


@pytest.mark.parametrize(('network', 'name', 'options'), ROWS)
def test_networks_learn_and_segment(documented, network, name, options):
    model = getattr(smp, network)(f'tu-{name}', encoder_weights=None, classes=3, **options)
    x, labels = torch.randn(2, 3, 32, 64), torch.randint(0, 3, (2, 32, 64))
    F.cross_entropy(model(x), labels).backward()
    assert not untouched(model.encoder)
    with torch.no_grad():
        assert documented['segment'](model.eval(), torch.randn(1, 3, 45, 33)).shape == (1, 3, 45, 33)


@pytest.mark.parametrize('name', ['agent_swin_tiny_224', 'zoo_focalnet_tiny_srf', 'eca_resnet18'])
def test_maps_are_those_of_timm(name):
    encoder = smp.encoders.get_encoder(f'tu-{name}', depth=5, **SHALLOW).eval()
    features = timm.create_model(name, features_only=True, **SHALLOW).eval()
    features.load_state_dict(encoder.model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(encoder(x)[2:], features(x), strict=True))


@pytest.mark.parametrize(('name', 'reductions'), pyramids().items())
def test_every_family_is_an_encoder(name, reductions):
    with torch.device('meta'):
        encoder = smp.encoders.get_encoder(f'tu-{name}', depth=reductions[-1].bit_length() - 1)
        maps = encoder(torch.empty(1, 3, 64, 96))
    assert [m.shape for m in maps] == [(1, c, 64 >> i, 96 >> i) for i, c in enumerate(encoder.out_channels)]


def test_a_stride_that_is_not_to_be_had_is_named():
    with pytest.raises(ValueError, match='nat_mini has no output_stride 16'):
        smp.DeepLabV3Plus('tu-nat_mini', encoder_weights=None)
