"""Config files of semantic segmentation: each builds, one of each method learns and predicts, mistakes are named."""

import functools

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from PIL import Image

from tests.training.conftest import ROOT
from zoo.training.checks import check_channels
from zoo.training.runner import NEEDED, read_config, trainer

FOLDER = ROOT / 'configs' / 'segmentation'
CONFIGS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob('*.py'))
RUNS = {
    'nat/upernet_nat_mini_160k.py': {'backbone.depths': (1, 1, 1, 1)},
    'litv2/semantic_fpn_litv2_s_80k.py': {'backbone.depths': (1, 1, 1, 1)},
    'nat/semantic_fpn_nat_pico_camvid.py': {},
}
"""Config -> what makes its model small."""


@pytest.fixture(autouse=True)
def scope():
    register_all_modules(init_default_scope=True)


@functools.cache
def recipe(name):
    config = read_config(str(FOLDER / name), {'data_root': '/data'})
    config.model.data_preprocessor = dict(config.data_preprocessor)
    return config


def build(name, **options):
    config = recipe(name).copy()
    config.merge_from_dict({f'model.{key}': value for key, value in {'backbone.pretrained': False, **options}.items()})
    return MODELS.build(config.model)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name):
    config = recipe(name)
    assert all(config.get(key) for key in NEEDED)
    assert len((FOLDER / name).read_text().splitlines()) <= 25
    with torch.device('meta'):
        segmentor = build(name)
    check_channels(segmentor, config.model)
    data = dict(config.train_dataloader.dataset, lazy_init=True)
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.data_root == '/data'
    classes = len(DATASETS.build(data).metainfo['classes'])
    heads = [head for head in (segmentor.decode_head, getattr(segmentor, 'auxiliary_head', None)) if head is not None]
    assert [head.num_classes for head in heads] == [classes] * len(heads)
    wrapper = dict(config.optim_wrapper, type='OptimWrapper')
    wrapper.pop('dtype', None)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(wrapper.pop('constructor', 'DefaultOptimWrapperConstructor'))
    groups = constructor(wrapper, wrapper.pop('paramwise_cfg', None))(segmentor).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == len(list(segmentor.parameters()))
    if 'upernet' in name:
        decay = {id(weight): group['weight_decay'] for group in groups for weight in group['params']}
        backbone = segmentor.backbone
        norms = [p for m in backbone.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()]
        assert {decay[id(weight)] for weight in norms} <= {0.0}


@pytest.mark.parametrize('name', RUNS)
def test_method_learns_and_predicts(name):
    segmentor = build(name, **RUNS[name])
    preprocessor = segmentor.data_preprocessor
    preprocessor.size, preprocessor.size_divisor = None, 1
    losses, _ = segmentor.parse_losses(segmentor(**preprocessor(batch(segmentor), True), mode='loss'))
    assert losses.isfinite()
    losses.backward()
    assert [name for name, p in segmentor.named_parameters() if p.grad is None] == []
    segmentor.eval()
    with torch.no_grad():
        results = segmentor(**preprocessor(batch(segmentor, 1), False), mode='predict')
    assert results[0].pred_sem_seg.data.shape == (1, 97, 131)


def batch(segmentor, count=2, height=97, width=131):
    """Random images with random classes."""
    samples = []
    for _ in range(count):
        size = (height, width)
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
        classes = segmentor.decode_head.num_classes
        sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, *size)))
        samples.append(sample)
    return dict(
        inputs=[torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in samples], data_samples=samples
    )


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
        ({'data_root': '/nowhere'}, r'no /nowhere/train: set data_root'),
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
