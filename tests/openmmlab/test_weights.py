"""Checkpoints of detectors and segmentors in the layouts of their authors load whole, or not at all."""

import json
import logging

import pytest
import torch
from mmdet.utils import register_all_modules as register_detection
from mmseg.utils import register_all_modules as register_segmentation

import checkpoints
from tests.openmmlab import layouts
from tests.training.conftest import ROOT
from tools import _console, convert, evaluate, predict
from tools import train as train_tool
from zoo.openmmlab import weights
from zoo.openmmlab.inference import build_model
from zoo.training.runner import read_config

NAT, WIDE, PVT, LARGE = [64, 128, 256, 512], [96, 192, 384, 768], [64, 128, 320, 512], [192, 384, 768, 1536]
AUTHORS = {
    'detection/nat/mask_rcnn_nat_mini_3x': ('nat/dense/nat_mini_det', layouts.mask_rcnn(NAT)),
    'detection/pvt/mask_rcnn_pvt_tiny_1x': ('pvt/dense_pvt_tiny', layouts.mask_rcnn(PVT)),
    'detection/cswin/cascade_mask_rcnn_cswin_tiny_3x': ('cswin/dense_cswin_tiny', layouts.cascade_mask_rcnn(NAT)),
    'detection/biformer/retinanet_biformer_small_1x': ('biformer/dense/biformer_small_det', layouts.retinanet(NAT)),
    'detection/litv2/retinanet_litv2_s_ws4_1x': ('litv2/dense/litv2_s_det_ws4', layouts.retinanet(WIDE)),
    'segmentation/dinat_s/upernet_dinat_s_tiny_160k': ('nat/dense/dinat_s_tiny_seg', layouts.upernet(WIDE)),
    'segmentation/cswin/upernet_cswin_tiny_160k': ('cswin/dense_cswin_tiny', layouts.upernet(NAT)),
    'segmentation/agent_swin/upernet_agent_swin_tiny_160k': ('agent/dense_agent_swin_t', layouts.upernet(WIDE)),
    'segmentation/biformer/upernet_biformer_small_160k': ('biformer/dense/biformer_small_det', layouts.upernet(NAT)),
    'segmentation/agent_pvt/semantic_fpn_agent_pvt_tiny_40k': ('agent/dense_agent_pvt_t', layouts.semantic_fpn(PVT)),
}
"""Config -> the reference with the names of its authors' backbone, and what neck and heads hold."""
YARDSTICKS = {
    'detection/timm/mask_rcnn_swin_tiny_1x': layouts.swin_tiny() | layouts.mask_rcnn(WIDE),
    'detection/timm/cascade_mask_rcnn_convnext_tiny_3x': layouts.convnext_tiny() | layouts.cascade_mask_rcnn(WIDE),
    'segmentation/timm/upernet_swin_tiny_160k': layouts.swin_tiny() | layouts.upernet(WIDE),
    'segmentation/timm/upernet_convnext_tiny_160k': layouts.convnext_tiny() | layouts.upernet(WIDE),
}
"""Config with a backbone of timm -> what its authors' checkpoint holds."""
HEADS = {
    'detection/focalnet/atss_focalnet_tiny_lrf_3x': layouts.atss(WIDE),
    'detection/focalnet/sparse_rcnn_focalnet_tiny_lrf_3x': layouts.sparse_rcnn(WIDE),
    'detection/nat/dyhead_nat_mini_1x': layouts.dyhead(NAT),
    'segmentation/dinat/mask2former_dinat_large_640_160k': layouts.mask2former(LARGE, 150, 100),
    'segmentation/dinat/mask2former_dinat_large_coco_panoptic_100e': layouts.mask2former(LARGE, 133, 200),
    'segmentation/dinat/mask2former_dinat_large_coco_instance_100e': layouts.mask2former_mmdet2(LARGE, 80, 200),
}
"""Config -> what neck and heads hold, with a backbone under our names."""


@pytest.fixture(autouse=True)
def libraries():
    register_detection(init_default_scope=False)
    register_segmentation(init_default_scope=False)


def build(name, device='meta', **options):
    options = {'backbone.pretrained': False, **options}
    config = read_config(
        str(ROOT / 'configs' / f'{name}.py'), {f'model.{key}': value for key, value in options.items()}
    )
    with torch.device(device):
        return build_model(config)


def empty(shapes):
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


@pytest.mark.parametrize('name', AUTHORS)
def test_the_authors_checkpoint_covers_the_model(name):
    reference, heads = AUTHORS[name]
    model = build(name)
    fitted = weights.fit(model, empty(layouts.backbone(reference) | heads))
    covered = checkpoints.coverage(model.state_dict(), fitted)
    assert covered.complete, covered.report()


@pytest.mark.parametrize('name', YARDSTICKS)
def test_the_authors_checkpoint_covers_the_model_of_timm(name):
    model, given = build(name), empty(YARDSTICKS[name])
    covered = checkpoints.coverage(model.state_dict(), weights.fit(model, given))
    assert covered.complete, covered.report()
    places = {id(tensor) for tensor in weights.renamed(model, given).values()}
    assert {key.rpartition('.')[2] for key, tensor in given.items() if id(tensor) not in places} <= {
        'relative_position_index'
    }


@pytest.mark.parametrize('name', HEADS)
def test_the_authors_heads_cover_ours(name):
    model = build(name)
    backbone = {key: tensor for key, tensor in model.state_dict().items() if key.startswith('backbone.')}
    covered = checkpoints.coverage(model.state_dict(), weights.fit(model, backbone | empty(HEADS[name])))
    assert covered.complete, covered.report()


def test_every_tensor_of_mask2former_has_its_place():
    model = build('segmentation/dinat/mask2former_dinat_large_640_160k')
    given = empty(layouts.mask2former(LARGE, 150, 100))
    places = {id(tensor): key for key, tensor in weights.renamed(model, given).items()}
    pairs = {
        'pixel_decoder.adapter_1.norm.bias': 'pixel_decoder.lateral_convs.0.gn.bias',
        'pixel_decoder.input_proj.2.0.weight': 'pixel_decoder.input_convs.2.conv.weight',
        'pixel_decoder.transformer.encoder.layers.5.linear2.bias': 'pixel_decoder.encoder.layers.5.ffn.layers.1.bias',
        'predictor.transformer_cross_attention_layers.8.norm.bias': 'transformer_decoder.layers.8.norms.0.bias',
        'predictor.transformer_self_attention_layers.0.norm.bias': 'transformer_decoder.layers.0.norms.1.bias',
        'predictor.mask_embed.layers.2.bias': 'mask_embed.4.bias',
        'predictor.class_embed.bias': 'cls_embed.bias',
    }
    for old, new in pairs.items():
        assert places[id(given[f'sem_seg_head.{old}'])] == f'decode_head.{new}'
    assert id(given['criterion.empty_weight']) not in places


RETINA = 'detection/nat/retinanet_nat_mini_1x'
SMALL = {
    'backbone.depths': (1, 1, 1, 1),
    'backbone.embed_dim': 16,
    'neck.in_channels': [16, 32, 64, 128],
    'neck.out_channels': 16,
    'bbox_head.in_channels': 16,
    'bbox_head.feat_channels': 16,
}


def authors_layout(model):
    """What mmdet 2 would have saved of this detector, under the names of the authors' backbone."""
    given = empty(layouts.backbone('nat/dense/nat_mini_det'))
    theirs = {id(tensor): key for key, tensor in given.items()}
    old_names = {key: theirs[id(tensor)] for key, tensor in weights.renamed(model, given).items()}
    return {old_names.get(key, key): tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize('layout', [authors_layout, torch.nn.Module.state_dict])
def test_a_saved_detector_comes_back(layout, tmp_path):
    torch.manual_seed(0)
    first, second = build(RETINA, 'cpu', **SMALL), build(RETINA, 'cpu', **SMALL)
    state = layout(first)
    assert any('levels.0.blocks.0.attn.rpb' in key for key in state) == (layout is authors_layout)
    file = tmp_path / 'retinanet.pth'
    torch.save({'meta': {'epoch': 12, 'mmdet_version': '2.19.0'}, 'state_dict': state, 'optimizer': {}}, file)
    assert weights.load_checkpoint(second, file).complete
    assert all(torch.equal(tensor, second.state_dict()[key]) for key, tensor in first.state_dict().items())
    image = torch.randn(1, 3, 70, 90)
    ours, theirs = (model.eval()(image, mode='tensor') for model in (second, first))
    assert all(torch.equal(a, b) for maps in zip(ours, theirs) for a, b in zip(*maps))


def test_a_checkpoint_that_does_not_cover_changes_nothing():
    torch.manual_seed(0)
    first, second = build(RETINA, 'cpu', **SMALL), build(RETINA, 'cpu', **SMALL)
    before = {key: tensor.clone() for key, tensor in second.state_dict().items()}
    state = {
        **first.state_dict(),
        'bbox_head.retina_cls.weight': torch.zeros(18, 16, 3, 3),
        'mask_head.a': torch.ones(1),
    }
    del state['neck.fpn_convs.3.conv.bias'], state['backbone.out_norms.2.bias']
    with pytest.raises(checkpoints.CheckpointError, match='does not cover RetinaNet; nothing was loaded') as error:
        weights.load_state_dict(second, state)
    named = 'retina_cls.weight', 'mask_head.a', 'neck.fpn_convs.3.conv.bias', 'backbone.out_norms.2.bias'
    assert all(key in str(error.value) for key in named)
    assert all(torch.equal(tensor, before[key]) for key, tensor in second.state_dict().items())
    covered = weights.load_state_dict(second, state, strict=False)
    assert covered.unexpected == ('mask_head.a',)
    assert set(covered.missing) == {'neck.fpn_convs.3.conv.bias', 'backbone.out_norms.2.bias'}


def test_the_catalogue_knows_the_authors_weights():
    config = ROOT / 'configs' / 'detection' / 'nat' / 'mask_rcnn_nat_mini_3x.py'
    assert weights.weights_of(str(config)).endswith('/nat_mini_maskrcnn.pth')
    with pytest.raises(ValueError, match='retinanet_nat_mini_1x.py has no weights in the catalogue: name a checkpoint'):
        weights.weights_of(str(config.with_stem('retinanet_nat_mini_1x')))


def test_layers_of_other_classes_stay_the_models_own(caplog):
    first, second = build(RETINA, 'cpu', **SMALL), build(RETINA, 'cpu', **SMALL, **{'bbox_head.num_classes': 3})
    own = second.bbox_head.retina_cls.weight.clone()
    with pytest.raises(checkpoints.CheckpointError, match='retina_cls'):
        weights.load_state_dict(second, first.state_dict())
    with caplog.at_level(logging.WARNING):
        assert weights.load_state_dict(second, first.state_dict(), other_classes=True).complete
    assert 'bbox_head.retina_cls.weight has 720 rows, the model 27: its own stay' in caplog.text
    assert torch.equal(second.bbox_head.retina_cls.weight, own)
    assert torch.equal(second.bbox_head.retina_reg.weight, first.bbox_head.retina_reg.weight)


@pytest.fixture
def saved(trained, tmp_path):
    """Config and checkpoint of a small detector in the layout of mmdet 2 and of NAT's authors."""
    path, folder = trained('detection')
    model = build_model(read_config(path))
    weights.load_checkpoint(model, next(folder.glob('*.safetensors')))
    torch.save({'meta': {}, 'state_dict': authors_layout(model)}, tmp_path / 'authors.pth')
    return path, folder, str(tmp_path / 'authors.pth')


def test_tools_take_the_authors_layout(saved, shapes, tmp_path, capsys):
    path, folder, file = saved
    own = str(next(folder.glob('*.safetensors')))
    scores = []
    for checkpoint in (own, file):
        capsys.readouterr()
        assert evaluate.main([path, checkpoint, '--debug']) == 0
        scores.append(json.loads(capsys.readouterr().out.splitlines()[-1])['coco/bbox_mAP'])
    assert scores[0] == scores[1] > 0
    assert predict.main([path, str(shapes / 'images' / '0.png'), '--weights', file, '--threshold', '0.05']) == 0
    output = tmp_path / 'ours.safetensors'
    assert convert.main([file, str(output), '--model', path]) == 0
    ours, before = checkpoints.read_state_dict(output), checkpoints.read_state_dict(own)
    assert ours.keys() == before.keys()
    assert all(torch.equal(ours[key], tensor) for key, tensor in before.items())
    report = output.with_suffix('.md').read_text()
    assert '| backbone.levels.0.blocks.0.attn.rpb | backbone.stages.0.blocks.0.mixer.rpb |' in report
    assert '- num_classes: 2' in report


def test_training_starts_from_the_authors_layout(saved, config, tmp_path, capsys):
    _, folder, file = saved
    lines = f"\nload_from = '{file}'\noptim_wrapper['optimizer']['lr'] = 0.0\ntrain_cfg['max_epochs'] = 1"
    path = config('detection', lines)
    assert train_tool.main([path, '--work-dir', str(tmp_path / 'run'), '--debug']) == 0
    start, end = (checkpoints.read_state_dict(next(f.glob('*.safetensors'))) for f in (folder, tmp_path / 'run'))
    assert all(torch.equal(start[key], tensor) for key, tensor in end.items() if 'num_batches' not in key)
    torch.save({'state_dict': {'backbone.a': torch.ones(1)}}, tmp_path / 'other.pth')
    path = config('detection', f"\nload_from = '{tmp_path / 'other.pth'}'")
    assert train_tool.main([path, '--work-dir', str(tmp_path / 'no')]) == _console.REFUSED
    assert 'other.pth does not cover MaskRCNN; nothing was loaded' in capsys.readouterr().err
