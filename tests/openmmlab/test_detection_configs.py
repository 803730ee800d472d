"""Every file in configs/detection builds; one per method and kind of backbone learns and predicts.

With `--all` every one does, as it is; otherwise backbones have their first blocks only, and proposals are few.
"""

import functools
from pathlib import Path

import pytest
import timm
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from tests.training.conftest import ROOT
from zoo.training.checks import check_channels
from zoo.training.runner import NEEDED, read_config

FOLDER = ROOT / 'configs' / 'detection'
CONFIGS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob('*.py'))
RUN = (
    'agent_pvt/retinanet_agent_pvt_tiny_1x.py',
    'agent_swin/cascade_mask_rcnn_agent_swin_tiny_3x.py',
    'biformer/mask_rcnn_biformer_small_1x.py',
    'cswin/mask_rcnn_cswin_tiny_3x.py',
    'dinat/mask_rcnn_dinat_mini_3x.py',
    'focalnet/atss_focalnet_tiny_lrf_3x.py',
    'focalnet/sparse_rcnn_focalnet_tiny_lrf_3x.py',
    'gated_resnet/retinanet_eca_resnet50_1x.py',
    'litv2/mask_rcnn_litv2_s_1x.py',
    'maxvit/cascade_mask_rcnn_maxvit_tiny_3x.py',
    'nat/dyhead_nat_mini_1x.py',
    'timm/mask_rcnn_swin_tiny_1x.py',
)
SIZES = [[3, 97, 131], [3, 128, 64]]
ODD_SIZES = [[3, 257, 391], [3, 65, 130]]


@pytest.fixture(autouse=True)
def scope():
    register_all_modules(init_default_scope=True)


@functools.cache
def recipe(name):
    return read_config(str(FOLDER / name), {'data_root': '/data'})


def pytest_generate_tests(metafunc):
    if 'trained' in metafunc.fixturenames:
        metafunc.parametrize('trained', CONFIGS if metafunc.config.getoption('--all') else RUN)


def built(config, **backbone):
    return MODELS.build(dict(config.model, backbone=dict(config.model.backbone, pretrained=False, **backbone)))


def few(config):
    """The config with few proposals, in training and prediction."""
    config = config.copy()
    if 'rpn_proposal' in config.model.get('train_cfg', {}):
        stages = config.model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 32
        config.merge_from_dict({f'model.{key}.max_per_img': 40 for key in ('train_cfg.rpn_proposal', 'test_cfg.rpn')})
    return config


def shallow(name):
    """What makes a backbone of its first blocks only."""
    if name.startswith(('resnet', 'bam_resnet')):
        return {'layers': (1, 1, 1, 1)} if timm.is_model(name.partition('.')[0]) else {}
    if name.endswith('_pico'):
        return {}
    dilations = {'dilations': ((1,), (2,), (1,), (2,))} if name.startswith('dinat') else {}
    return {'depths': (1, 1, 1, 1), **dilations}


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name, request):
    config = recipe(name)
    backbone = {} if request.config.getoption('--all') else shallow(config.model.backbone.name)
    assert all(config.get(key) for key in NEEDED)
    assert len((FOLDER / name).read_text().splitlines()) <= 25
    with torch.device('meta'):
        detector = built(config, **backbone)
    check_channels(detector, config.model)
    wrapper = dict(config.optim_wrapper, type='OptimWrapper')
    wrapper.pop('dtype', None)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(wrapper.pop('constructor'))
    groups = constructor(wrapper, wrapper.pop('paramwise_cfg', None))(detector).optimizer.param_groups
    assert len(groups) < 50
    grouped = [id(weight) for group in groups for weight in group['params']]
    learnt = {id(weight) for weight in detector.parameters() if weight.requires_grad}
    assert len(set(grouped)) == len(grouped)
    assert learnt <= set(grouped)


def test_learns_and_predicts(trained, request):
    whole = request.config.getoption('--all')
    config = recipe(trained) if whole else few(recipe(trained))
    detector = built(config, **({} if whole else shallow(config.model.backbone.name)))
    masks = 'segm' in config.val_evaluator.metric
    inputs = demo_mm_inputs(2, SIZES, num_classes=80, with_mask=masks)
    detector.train()
    losses, logs = detector.parse_losses(detector(**detector.data_preprocessor(inputs, True), mode='loss'))
    losses.backward()
    assert all(value.isfinite() for value in logs.values())
    learnt = {name: weight for name, weight in detector.named_parameters() if weight.requires_grad}
    unused = [name for name, weight in learnt.items() if weight.grad is None]
    # BiFormer's RetinaNet: FPN starts at the second map
    assert not unused or (config.get('find_unused_parameters') and all('out_norms.0' in name for name in unused))
    assert all(weight.grad.isfinite().all() for name, weight in learnt.items() if name not in unused)
    detector.zero_grad()
    detector.eval()
    sizes = ODD_SIZES if whole else SIZES
    inputs = demo_mm_inputs(2, sizes, num_classes=80, with_mask=masks)
    with torch.no_grad():
        results = detector(**detector.data_preprocessor(inputs, False), mode='predict')
    for result, (_, height, width) in zip(results, sizes, strict=True):
        assert result.pred_instances.bboxes.isfinite().all()
        assert ((result.pred_instances.scores >= 0) & (result.pred_instances.scores <= 1)).all()
        if masks:
            assert result.pred_instances.masks.shape[1:] == (height, width)


def test_configs_lie_with_their_family():
    for name in CONFIGS:
        backbone = recipe(name).model.backbone.name
        family = Path(name).parts[0]
        assert family == 'timm' or family.startswith('dinat') or (ROOT / 'zoo' / 'families' / f'{family}.py').exists()
        plain = backbone.partition('.')[0].removeprefix('zoo_')
        assert set(Path(name).stem.split('_')) & set(plain.split('_')), name
