"""Config files of segmentation: each builds, one of each method learns and predicts, mistakes are named.

With `--all` every one learns and predicts, as it is; otherwise with one block in each stage and few channels.
"""

import functools
from pathlib import Path

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules as register_detection
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules as register_segmentation
from PIL import Image

from tests.training.conftest import ROOT
from zoo.training.checks import check_channels
from zoo.training.runner import NEEDED, read_config, trainer

FOLDER = ROOT / 'configs' / 'segmentation'
CONFIGS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob('*.py'))
RUN = (
    'agent_pvt/semantic_fpn_agent_pvt_tiny_40k.py',
    'dinat/mask2former_dinat_large_640_160k.py',
    'dinat/mask2former_dinat_large_coco_instance_100e.py',
    'dinat/mask2former_dinat_large_coco_panoptic_100e.py',
    'focalnet/upernet_focalnet_tiny_srf_160k.py',
    'nat/semantic_fpn_nat_pico_camvid.py',
)
SIZE, ODD_SIZE = (97, 131), (257, 391)
QUERIES = {
    'in_channels': [64, 128, 256, 512],
    'num_queries': 10,
    'pixel_decoder.encoder.num_layers': 1,
    'transformer_decoder.num_layers': 2,
}
"""A small head of Mask2Former."""


@pytest.fixture(scope='module', autouse=True)
def libraries():
    register_detection(init_default_scope=False)
    register_segmentation(init_default_scope=False)
    MMLogger.get_instance('mmengine', log_level='ERROR')


def pytest_generate_tests(metafunc):
    if 'trained' in metafunc.fixturenames:
        metafunc.parametrize('trained', CONFIGS if metafunc.config.getoption('--all') else RUN)


@functools.cache
def recipe(name):
    config = read_config(str(FOLDER / name), {'data_root': '/data'})
    config.model.setdefault('data_preprocessor', dict(config.data_preprocessor))
    return config


def build(name, **options):
    config = recipe(name).copy()
    init_default_scope(config.default_scope)
    config.merge_from_dict({f'model.{key}': value for key, value in {'backbone.pretrained': False, **options}.items()})
    return MODELS.build(config.model)


def small(name):
    """What leaves one block in each stage and few channels in the heads."""
    config = recipe(name).model
    options = {}
    if config.backbone.name != 'nat_pico' and 'resnet' not in config.backbone.name:
        options['backbone.depths'] = (1, 1, 1, 1)
    if 'dinat' in config.backbone.name:
        options['backbone.dilations'] = ((1,), (2,), (3,), (1,))
    for head in ('decode_head', 'panoptic_head'):
        if head in config and 'Mask2Former' in config[head].type:
            options['backbone.name'] = 'dinat_mini'
            options.update({f'{head}.{key}': value for key, value in QUERIES.items()})
        elif head in config:
            options[f'{head}.channels'] = 32
    return options


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name):
    config = recipe(name)
    assert all(config.get(key) for key in NEEDED)
    assert len((FOLDER / name).read_text().splitlines()) <= 25
    with torch.device('meta'):
        segmentor = build(name)
    check_channels(segmentor, config.model)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert Path(loader.dataset.data_root) == Path('/data')
    wrapper = dict(config.optim_wrapper, type='OptimWrapper')
    wrapper.pop('dtype', None)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(wrapper.pop('constructor', 'DefaultOptimWrapperConstructor'))
    groups = constructor(wrapper, wrapper.pop('paramwise_cfg', None))(segmentor).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == len(list(segmentor.parameters()))
    if 'upernet' in name and 'resnet' not in name:
        decay = {id(weight): group['weight_decay'] for group in groups for weight in group['params']}
        norms = [m for m in segmentor.backbone.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert {decay[id(weight)] for norm in norms for weight in norm.parameters()} <= {0.0}
    if config.default_scope == 'mmseg':
        classes = DATASETS.build(dict(config.train_dataloader.dataset, lazy_init=True)).metainfo['classes']
        heads = [getattr(segmentor, name, None) for name in ('decode_head', 'auxiliary_head')]
        assert {head.num_classes for head in heads if head is not None} == {len(classes)}


def test_method_learns_and_predicts(trained, request):
    whole = request.config.getoption('--all')
    segmentor = build(trained, **({} if whole else small(trained)))
    preprocessor = segmentor.data_preprocessor
    preprocessor.size = preprocessor.batch_augments = None
    preprocessor.size_divisor = 1
    inputs = images_of(segmentor, SIZE)
    losses, _ = segmentor.parse_losses(segmentor(**preprocessor(inputs, True), mode='loss'))
    assert losses.isfinite()
    losses.backward()
    learnt = {name: weight for name, weight in segmentor.named_parameters() if weight.requires_grad}
    assert [name for name, weight in learnt.items() if weight.grad is None or not weight.grad.isfinite().all()] == []
    segmentor.zero_grad()
    segmentor.eval()
    size = ODD_SIZE if whole else SIZE
    inputs = images_of(segmentor, size)
    with torch.no_grad():
        results = segmentor(**preprocessor(inputs, False), mode='predict')
    for result in results:
        if 'pred_sem_seg' in result:
            assert result.pred_sem_seg.data.shape == (1, *size)
        else:
            assert result.pred_instances.masks.shape[1:] == size
            assert 'pred_panoptic_seg' not in result or result.pred_panoptic_seg.sem_seg.shape == (1, *size)


def images_of(segmentor, size):
    """Two random images with random classes, or with the boxes and masks of random things."""
    if not hasattr(segmentor, 'decode_head'):
        return demo_mm_inputs(2, [[3, *size]] * 2, num_classes=80, with_mask=True, with_semantic=True)
    samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size)) for _ in range(2)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, segmentor.decode_head.num_classes, (1, *size)))
    return {'inputs': [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in samples], 'data_samples': samples}


@pytest.fixture
def frames(tmp_path):
    """A data set in the layout of CamVid."""
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        for i in range(2):
            Image.new('RGB', (64, 48), (i * 99, 5, 5)).save(tmp_path / split / f'{i}.jpg')
            Image.new('L', (64, 48), i).save(tmp_path / split / f'{i}.png')
    return str(tmp_path)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'data_root': '/nowhere'}, 'no folder /nowhere/train: set data_root'),
        ({'model.decode_head.num_classes': 7}, 'decode_head has 7 classes and the data 11: set model.decode_head.num_'),
        ({'model.backbone.out_indices': (0, 1)}, r'neck takes maps of \[64, 128, 256\] channels, .* gives \[64, 128\]'),
        ({'model.backbone.out_indices': (0, 5)}, r'out_indices \(0, 5\) of nat_pico: its stages are 0 to 2'),
        ({'model.backbone.name': 'nat_teny'}, "unknown backbone 'nat_teny'"),
    ],
)
def test_mistakes_are_named_before_the_first_iteration(options, message, frames, tmp_path):
    overrides = {'data_root': frames, 'model.backbone.pretrained': False, 'work_dir': str(tmp_path), **options}
    with pytest.raises(ValueError, match=message):
        trainer(read_config(str(FOLDER / 'nat' / 'semantic_fpn_nat_pico_camvid.py'), overrides))
