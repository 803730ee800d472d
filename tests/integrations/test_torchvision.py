"""Backbones of the zoo under torchvision's detectors."""

import pytest
import timm
import torch
from torchvision.models.detection import RetinaNet

from tests.documentation import run_example
from tests.integrations.backbones import NAMES, SHALLOW, pretrained_nat_pico, untouched

SIZES = ((75, 50), (64, 97))


@pytest.fixture(scope='module')
def documented() -> dict:
    torch.manual_seed(0)
    return run_example('integrations.md', 'torchvision')


def test_mask_rcnn_of_the_document_learns_and_predicts(documented):
    assert all(torch.isfinite(loss) for loss in documented['losses'].values())
    assert not untouched(documented['backbone'].body.model.stages)
    for found, size in zip(documented['found'], SIZES, strict=True):
        assert found['masks'].shape == (len(found['boxes']), 1, *size)


def test_weights_arrive(documented):
    state = documented['backbone'].body.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in pretrained_nat_pico().items())


@pytest.mark.parametrize('name', NAMES)
def test_retinanet_learns_and_predicts(documented, name):
    backbone = documented['Pyramid'](name, out_channels=32, **SHALLOW)
    model = RetinaNet(backbone, num_classes=3, min_size=64, max_size=96)
    images = [torch.rand(3, *size) for size in SIZES]
    target = {'boxes': torch.tensor([[5.0, 10.0, 40.0, 42.0]]), 'labels': torch.tensor([2])}
    losses = model(images, [target, target])
    sum(losses.values()).backward()
    assert not untouched(backbone)
    with torch.no_grad():
        found = model.eval()(images)
    assert all(torch.isfinite(each['boxes']).all() for each in found)


@pytest.mark.parametrize('name', NAMES)
def test_levels_are_those_of_timm(documented, name):
    backbone = documented['Pyramid'](name, out_channels=8, **SHALLOW).eval()
    features = timm.create_model(name, features_only=True, **SHALLOW).eval()
    features.load_state_dict(backbone.body.state_dict())
    x = torch.randn(1, 3, 75, 50)
    with torch.no_grad():
        maps, levels = features(x), backbone(x)
        assert all(torch.equal(a, b) for a, b in zip(backbone.body(x), maps, strict=True))
    assert [level.shape[2:] for level in levels.values()][:-1] == [m.shape[2:] for m in maps]
