"""Backbones of the zoo in the networks of transformers."""

import pytest
import timm
import torch

from tests.documentation import run_example
from tests.integrations.backbones import NAMES, SHALLOW, equal, pretrained_nat_pico, untouched

transformers = pytest.importorskip('transformers')

TINY_DETR = dict(
    d_model=32,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    num_queries=7,
    num_labels=3,
)


def backbone(name: str, *out_indices: int, **options):
    config = transformers.TimmBackboneConfig(backbone=name, out_indices=list(out_indices))
    return transformers.TimmBackbone(config, **options)


@pytest.fixture(scope='module')
def documented() -> dict:
    torch.manual_seed(0)
    return run_example('integrations.md', 'transformers')


def test_mask2former_of_the_document_learns_and_predicts(documented):
    assert torch.isfinite(documented['out'].class_queries_logits).all()
    assert documented['out'].class_queries_logits.shape == (2, 20, 4)
    assert documented['out'].masks_queries_logits.shape == (2, 20, 38, 25)
    assert not untouched(documented['model'].model.pixel_level_module.encoder)


def test_weights_arrive(documented):
    encoder = documented['model'].model.pixel_level_module.encoder
    assert equal(encoder._backbone.state_dict(), pretrained_nat_pico())
    alone = transformers.TimmBackbone.from_pretrained('nat_pico', out_indices=[0, 1, 2])
    assert equal(alone._backbone.state_dict(), pretrained_nat_pico())


def test_a_saved_network_is_read_back(documented, tmp_path):
    model = documented['model']
    model.save_pretrained(tmp_path)
    again = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path)
    assert equal(again.state_dict(), model.state_dict())


@pytest.mark.parametrize('name', NAMES)
def test_features_are_those_of_timm(name):
    ours = backbone(name, 1, 3, **SHALLOW).eval()
    features = timm.create_model(name, features_only=True, out_indices=(1, 3), **SHALLOW).eval()
    features.load_state_dict(ours._backbone.state_dict())
    x = torch.randn(2, 3, 75, 50)
    with torch.no_grad():
        maps = ours(x).feature_maps
        assert all(torch.equal(a, b) for a, b in zip(maps, features(x), strict=True))
    assert ours.channels == [m.shape[1] for m in maps]
    assert ours.out_features == ['stages.1', 'stages.3']


@pytest.mark.parametrize('name', ['nat_pico', 'agent_swin_tiny_224', 'eca_resnet18'])
def test_detr_learns_and_predicts(name):
    config = transformers.TimmBackboneConfig(backbone=name, out_indices=[1, 2])
    model = transformers.DetrForObjectDetection(transformers.DetrConfig(backbone_config=config, **TINY_DETR))
    x = torch.randn(2, 3, 75, 50)
    label = {'class_labels': torch.tensor([1]), 'boxes': torch.tensor([[0.5, 0.5, 0.2, 0.3]])}
    model(x, labels=[label, label]).loss.backward()
    assert not untouched(model.model.backbone.model)
    with torch.no_grad():
        assert model.eval()(x).pred_boxes.shape == (2, 7, 4)


def test_dilation_is_for_convolutions():
    config = transformers.TimmBackboneConfig(backbone='eca_resnet18', out_indices=[3], output_stride=16)
    maps = transformers.TimmBackbone(config)(torch.randn(2, 3, 64, 96)).feature_maps
    assert maps[0].shape == (2, 512, 4, 6)
    config = transformers.TimmBackboneConfig(backbone='nat_mini', out_indices=[3], output_stride=16)
    with pytest.raises(ValueError, match='nat_mini has no output_stride 16'):
        transformers.TimmBackbone(config)
