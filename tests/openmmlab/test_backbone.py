"""Backbones of the zoo and of timm in mmdet and mmseg: maps, frozen stages, names of weights, whole models."""

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import checkpoints
from tests.training.conftest import ROOT
from zoo.golden import models, reference, rule
from zoo.openmmlab.backbone import ZooBackbone

LEVELS = (0, 1, 2)


def nat_pico(**options):
    torch.manual_seed(0)
    return MODELS.build(dict(type='ZooBackbone', name='nat_pico', out_indices=LEVELS, **options))


def test_maps_are_those_of_features_only():
    backbone = nat_pico().eval()
    features = timm.create_model('nat_pico', features_only=True, out_indices=LEVELS).eval()
    features.load_state_dict(backbone.state_dict())
    x = torch.randn(2, 3, 37, 50)
    with torch.no_grad():
        maps, expected = backbone(x), features(x)
    assert isinstance(maps, tuple)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    assert backbone.channels == [m.shape[1] for m in maps]
    assert backbone.reductions == [2, 4, 8]


def test_weights_have_the_names_of_the_backbone_and_take_the_authors():
    backbone = nat_pico(out_norms=True)
    state = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    assert {'stem.norm.weight', 'stages.0.blocks.0.mixer.rpb', 'out_norms.2.bias'} <= set(state)
    authors = {key.replace('stages.', 'levels.').replace('mixer.', 'attn.'): 2 * t for key, t in state.items()}
    authors = {key: t for key, t in authors.items() if 'downsample' not in key}
    detector = torch.nn.ModuleDict({'backbone': backbone})
    detector.load_state_dict({f'backbone.{key}': t for key, t in authors.items()}, strict=False)
    after = backbone.state_dict()
    assert all(torch.equal(after[key], 2 * state[key]) for key in state if 'downsample' not in key)


@pytest.mark.parametrize('case', ['nat/dense', 'biformer/dense'])
def test_the_authors_dense_maps_come_through_the_adapter(case):
    for dense in reference.find([ROOT / 'tests' / 'golden' / case]):
        adapter, name = models.resolve(dense)
        backbone = ZooBackbone(name, out_norms=True, **adapter.arguments(dense.arguments)).eval()
        backbone.load_state_dict(models.authors_state_dict(dense, dict(out_norms=True)))
        with torch.no_grad():
            maps = list(backbone(rule.images(dense.config['input'])))
        compared = list(models.compare_maps(dense, models.ends(maps, dense.arrays.features)))
        assert len(compared) == 4
        assert all(comparison.agrees for comparison in compared), compared


def test_frozen_stages_stay_as_they_are():
    backbone = nat_pico(frozen_stages=1, drop_path_rate=0.5).train()
    frozen = {name.split('.blocks')[0] for name, p in backbone.features.model.named_parameters() if not p.requires_grad}
    assert {name.split('.')[0] for name in frozen} == {'stem', 'stages'}
    assert 'stages.0' in frozen
    assert not {name for name in frozen if name.startswith(('stages.1', 'stages.2'))}
    stages = backbone.features.model.stages
    assert [stage.training for stage in stages] == [False, True, True]
    everything = nat_pico(frozen_stages=3)
    assert not any(p.requires_grad for p in everything.features.model.stages.parameters())
    stem = nat_pico(frozen_stages=0)
    assert {name.split('.')[2] for name, p in stem.named_parameters() if not p.requires_grad} == {'stem'}


def test_frozen_stages_and_still_norms_of_a_cnn_of_timm():
    backbone = ZooBackbone('resnet18', frozen_stages=2, norm_eval=True).train()
    assert backbone.reductions == [4, 8, 16, 32]
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert {name.split('.')[2] for name in frozen} == {'conv1', 'bn1', 'layer1'}
    assert 'layer1.0.conv1.weight' in backbone.state_dict()
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items() if 'running' in key}
    backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(backbone.state_dict()[key], tensor) for key, tensor in before.items())


def test_maps_of_timm_have_their_channels_first():
    swin = ZooBackbone('swin_tiny_patch4_window7_224', strict_img_size=False, depths=(1, 1, 1, 1), frozen_stages=1)
    assert [tuple(m.shape) for m in swin(torch.randn(1, 3, 64, 96))] == [
        (1, 96 * 2**i, 16 // 2**i, 24 // 2**i) for i in range(4)
    ]


def test_a_checkpoint_of_the_classifier_fills_the_backbone_and_stays(tmp_path):
    model = timm.create_model('nat_pico', num_classes=10)
    file = tmp_path / 'nat_pico.pth'
    torch.save({'model': model.state_dict()}, file)
    backbone = nat_pico(checkpoint=str(file), out_norms=(0, 1, 2))
    backbone.init_weights()
    state = backbone.state_dict()
    assert all(
        torch.equal(state[key], t) for key, t in model.state_dict().items() if key.startswith(('stem', 'stages'))
    )
    other = tmp_path / 'other.pth'
    torch.save({'model': timm.create_model('resnet18').state_dict()}, other)
    foreign = nat_pico(checkpoint=str(other))
    with pytest.raises(checkpoints.CheckpointError, match='does not cover'):
        foreign.init_weights()


def test_gradient_checkpointing_is_neutral():
    gradients = []
    for with_cp in (False, True):
        backbone = nat_pico(with_cp=with_cp)
        sum(m.square().sum() for m in backbone(torch.ones(1, 3, 32, 32))).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert gradients[0]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(name='nat_teny'), "unknown backbone 'nat_teny'"),
        (dict(name='nat_pico', out_indices=(0, 3)), r'out_indices \(0, 3\) of nat_pico: its stages are 0 to 2'),
        (dict(name='nat_pico', out_indices=()), 'out_indices'),
        (dict(name='nat_pico', frozen_stages=4), 'frozen_stages 4 of nat_pico: choose from -1 to 3'),
        (dict(name='nat_pico', init_cfg=dict(type='Pretrained', checkpoint='a.pth')), 'checkpoint='),
        (dict(name='nat_pico', out_norms=(5,)), r'out_norms.*\(5,\)'),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ZooBackbone(**options)


def test_mask_rcnn_learns_and_predicts_on_images_of_different_sizes(tmp_path):
    from mmdet.registry import MODELS as DETECTORS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    (tmp_path / 'config.py').write_text("_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']\n")
    config = Config.fromfile(tmp_path / 'config.py').model
    config.backbone = dict(type='ZooBackbone', name='nat_mini', out_norms=True, depths=(1, 1, 1, 1))
    config.neck.in_channels = [64, 128, 256, 512]
    detector = DETECTORS.build(config)
    detector.init_weights()
    inputs = demo_mm_inputs(2, [[3, 97, 131], [3, 128, 64]], num_classes=80, with_mask=True)
    losses, _ = detector.parse_losses(detector(**detector.data_preprocessor(inputs, True), mode='loss'))
    assert losses.isfinite()
    losses.backward()
    silent = [name for name, p in detector.named_parameters() if p.grad is None]
    assert silent == []
    detector.eval()
    with torch.no_grad():
        results = detector(**detector.data_preprocessor(inputs, False), mode='predict')
    assert [result.pred_instances.masks.shape[1:] for result in results] == [(97, 131), (128, 64)]
