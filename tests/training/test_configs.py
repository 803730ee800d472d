"""Every recipe can be built and has the numbers of the authors: those of their scripts, written down here once more."""

import functools
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from timm.data import create_transform

import checkpoints
import zoo
from checkpoints.entries import entry_named
from tests.training.conftest import ROOT
from zoo.registry import family_of
from zoo.training.runner import NEEDED, read_config

FOLDER = ROOT / 'configs' / 'classification'
CONFIGS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob('*.py') if path.name != '__init__.py')
RECIPES = [name for name in CONFIGS if name.endswith('_imagenet.py')]

NAT = dict(lr=1e-3, decay=0.05, clip=5.0, warmup=20, cosine=300, epochs=310, batch=1024, eta_min=5e-6)
TUNED = dict(NAT, lr=5e-5, warmup=0, cosine=0, epochs=30, batch=512)
SWIN = dict(NAT, epochs=300, eta_min=1e-5)
DEIT = dict(SWIN, clip=None, warmup=5, repeats=3)
CSWIN = dict(NAT, lr=2e-3, clip=None, batch=2048, eta_min=1e-5, ema=0.99984)
CSWIN_TUNED = dict(CSWIN, decay=1e-8, warmup=0, eta_min=5e-7)
MAXVIT = dict(NAT, lr=3e-3, clip=1.0, warmup=10000, epochs=300, batch=4096, eta_min=1e-5, ema=0.9999)
MAXVIT_TUNED = dict(TUNED, clip=1.0, decay=1e-8, ema=0.9999)
SGD = dict(lr=0.1, decay=1e-4, clip=None, epochs=100, batch=256, step=30)
NUMBERS = {
    'nat_*': NAT,
    'dinat_*': NAT,
    '*nat_isotropic_base': dict(NAT, warmup=50, ema=0.9998),
    'vitrpb_small': NAT,
    'vitrpb_base': dict(NAT, warmup=50, ema=0.9998),
    'dinat_*large': dict(TUNED, decay=1e-4),
    'dinat_large_384*': dict(TUNED, decay=1e-10),
    'dinat_s_large_384': dict(TUNED, decay=1e-5),
    'mixer_*': NAT,
    'litv2_*': SWIN,
    'litv2_b_384': dict(SWIN, lr=4e-5, decay=1e-8, warmup=5, cosine=30, epochs=30, eta_min=4e-7),
    'zoo_focalnet_*': dict(SWIN, decay=0.0),
    'cswin_*': CSWIN,
    'cswin_base_224': dict(CSWIN, lr=1e-3, decay=0.1, batch=1024, ema=0.99992),
    'cswin_*_384': dict(CSWIN_TUNED, lr=5e-6, cosine=20, epochs=30, batch=256, ema=0.9998),
    'cswin_large_224': dict(CSWIN_TUNED, lr=1.25e-5, cosine=30, epochs=40, batch=512, ema=0.9996),
    'agent_deit_*': SWIN,
    'agent_deit_tiny_*': dict(SWIN, lr=4e-3, batch=4096, eta_min=4e-5),
    'agent_deit_*_448': dict(SWIN, lr=5e-4, batch=512, eta_min=5e-6),
    'agent_swin_*': SWIN,
    'agent_swin_small_288': dict(SWIN, lr=5e-4, batch=512, eta_min=5e-6),
    'agent_swin_base_224': dict(SWIN, lr=5e-4, batch=512, eta_min=5e-6),
    'agent_swin_base_384': dict(SWIN, lr=1e-5, decay=1e-8, warmup=5, cosine=30, epochs=30, batch=256, eta_min=1e-7),
    'agent_pvt_*': dict(NAT, clip=None, warmup=5, eta_min=2e-5),
    'agent_pvt_medium_224': dict(NAT, clip=1.0, warmup=5, eta_min=2e-5),
    'agent_pvt_medium_256': dict(NAT, lr=5e-4, clip=1.0, warmup=5, batch=512, eta_min=1e-5),
    'agent_pvt_large_224': dict(NAT, lr=5e-4, clip=1.0, warmup=5, batch=512, eta_min=1e-5),
    'agent_cswin_*': dict(NAT, clip=None, eta_min=2e-5, ema=0.99984),
    'agent_cswin_base_224': dict(NAT, lr=5e-4, decay=0.1, clip=None, batch=512, eta_min=1e-5, ema=0.99992),
    'agent_cswin_base_384': dict(
        NAT, lr=2.5e-6, decay=1e-8, clip=None, warmup=0, cosine=20, epochs=30, batch=256, eta_min=2.5e-7, ema=0.9998
    ),
    'pvt_*': DEIT,
    'pvt_medium': dict(DEIT, clip=1.0),
    'pvt_large': dict(DEIT, clip=1.0),
    'biformer_*': DEIT,
    'maxvit_stl': DEIT,
    'zoo_maxvit_*_224': MAXVIT,
    'zoo_maxvit_*_384': MAXVIT_TUNED,
    'zoo_maxvit_*_512': MAXVIT_TUNED,
    '*_*resnet*': SGD,
    'bam_*': dict(SGD, epochs=90),
    'pkcam_*': dict(SGD, epochs=200),
    'senet_*': dict(SGD, lr=0.075, batch=128, epochs=90, step=None),
    '*_mobilenetv2*': dict(SGD, lr=0.045, decay=4e-5, batch=96, epochs=400, step=None),
    'coordatt_*': dict(SGD, lr=0.05, decay=4e-5, cosine=200, epochs=200, step=None),
}
"""Pattern of model names -> numbers; the last pattern that fits is taken."""

DROP_PATH = {
    '*_mini': 0.2,
    '*_tiny*': 0.2,
    '*_small*': 0.3,
    '*_base*': 0.5,
    '*_large*': 0.35,
    '*_isotropic_small': 0.1,
    '*_isotropic_base': 0.4,
    'vitrpb_small': 0.1,
    'vitrpb_base': 0.4,
    'litv2_s*': 0.2,
    'litv2_m': 0.3,
    'litv2_b*': 0.5,
    '*_iso': 0.2,
    '*cswin_small_224': 0.4,
    '*cswin_base_384': 0.7,
    'cswin_large_*': 0.2,
    'agent_deit_tiny_*': 0.0,
    'agent_deit_small_*': 0.1,
    'agent_deit_base_*': 0.3,
    '*pvt_tiny*': 0.1,
    '*pvt_small*': 0.1,
    '*pvt_medium*': 0.3,
    '*pvt_large*': 0.3,
    'biformer_*': 0.1,
    'biformer_small': 0.15,
    'biformer_base': 0.4,
    'maxvit_stl': 0.1,
    'zoo_maxvit_base_*': 0.4,
    'zoo_maxvit_large_*': 0.6,
    'zoo_maxvit_xlarge_*': 0.2,
    '*_*resnet*': None,
    '*_mobilenetv2*': None,
}
"""The same for the drop path rate; None where the network has none."""


@functools.cache
def recipe(name: str):
    return read_config(str(FOLDER / name), {'data_root': '/data'})


def last_match(table: dict, name: str):
    return [value for pattern, value in table.items() if fnmatch(name, pattern)][-1]


def pytest_generate_tests(metafunc):
    if metafunc.function is test_config_builds:
        one_of_each = {(Path(name).parent, name.rpartition('_')[2]): name for name in reversed(CONFIGS)}
        metafunc.parametrize('name', CONFIGS if metafunc.config.getoption('--all') else one_of_each.values())


def test_config_builds(name):
    config = recipe(name)
    assert all(config.get(key) for key in NEEDED)
    with torch.device('meta'):
        classifier = MODELS.build(dict(config.model, pretrained=False))
    data, preprocessor = config.train_dataloader, classifier.data_preprocessor
    assert classifier.model.num_classes == (1000 if data.dataset.type == 'FolderDataset' else 10)
    assert (preprocessor.mixup is not None) == (config.model.loss.type == 'soft_target')
    wrapper = dict(config.optim_wrapper, type='OptimWrapper')
    wrapper.pop('dtype', None)
    groups = build_optim_wrapper(classifier, wrapper).optimizer.param_groups
    grouped = [id(weight) for group in groups for weight in group['params']]
    assert sorted(grouped) == sorted(id(weight) for weight in classifier.parameters() if weight.requires_grad)
    decayed = {id(weight) for group in groups if group['weight_decay'] for weight in group['params']}
    options = config.optim_wrapper.optimizer
    assert bool(decayed) == bool(options.weight_decay)
    if options.get('filter_bias_and_bn', True):
        exempt = classifier.model.no_weight_decay()
        for parameter, weight in classifier.model.named_parameters():
            assert id(weight) not in decayed or (weight.ndim > 1 and parameter not in exempt)


def test_every_trained_network_has_a_recipe():
    trained = {recipe(name).model.name for name in CONFIGS}
    released = {
        model
        for family in checkpoints.families()
        for model, tags in checkpoints.catalogue(family).items()
        if any(entry.num_classes <= 1000 for entry in tags.values())
    }
    assert released <= trained
    assert {model for model in zoo.list_models() if family_of(model) not in checkpoints.families()} <= trained


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_has_the_numbers_of_the_authors(name):
    config = recipe(name)
    numbers, optimizer = last_match(NUMBERS, config.model.name), config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (numbers['lr'], numbers['decay'])
    assert (config.optim_wrapper.get('clip_grad') or {}).get('max_norm') == numbers['clip']
    assert config.train_cfg.max_epochs == numbers['epochs']
    assert config.auto_scale_lr.base_batch_size == numbers['batch']
    assert numbers['batch'] % config.train_dataloader.batch_size == 0
    assert config.train_dataloader.sampler.get('num_repeats', 1) == numbers.get('repeats', 1)
    averaged = [1 - hook.momentum for hook in config.get('custom_hooks', ())]
    assert averaged == ([pytest.approx(numbers['ema'], abs=1e-9)] if 'ema' in numbers else [])
    schedules = {schedule.type: schedule for schedule in config.get('param_scheduler') or ()}
    assert schedules.get('LinearLR', {}).get('end', 0) == numbers.get('warmup', 0)
    assert schedules.get('StepLR', {}).get('step_size') == numbers.get('step')
    cosine = schedules.get('CosineAnnealingLR', {})
    assert cosine.get('T_max', 0) == numbers.get('cosine', 0)
    if cosine and 'eta_min' in numbers:
        assert cosine.get('eta_min', optimizer.lr * cosine.get('eta_min_ratio', 0)) == pytest.approx(numbers['eta_min'])
    assert config.model.get('drop_path_rate') == last_match(DROP_PATH, config.model.name)


@pytest.mark.parametrize('name', RECIPES)
def test_images_are_prepared_as_the_released_weights_want_them(name):
    config = recipe(name)
    train, val = (config[f'{part}_dataloader'].dataset.transform for part in ('train', 'val'))
    assert train.input_size == val.input_size
    convolutional = 'resnet' in config.model.name or 'mobilenet' in config.model.name
    policy = None if convolutional else 'rand-m15-n2' if '_tf_' in config.model.name else 'rand-m9-mstd0.5-inc1'
    assert train.auto_augment == policy
    steps = {type(step).__name__ for step in create_transform(**train, use_prefetcher=True, normalize=False).transforms}
    crops = {'RandomResizedCropAndInterpolation', 'RandomHorizontalFlip', 'MaybePILToTensor'}
    assert steps == (crops if convolutional else crops | {'RandAugment'})
    family = family_of(config.model.name)
    entries = checkpoints.catalogue(family).get(config.model.name, {}) if family in checkpoints.families() else {}
    for entry in entries.values():
        if entry.num_classes == 1000:
            assert val.input_size == entry.input_size[-1]
            assert (val.crop_pct, val.get('crop_mode', 'center')) == (entry.crop_pct, entry.crop_mode)
            assert val.interpolation == entry.interpolation
            preprocessor = MODELS.build(config.model.data_preprocessor)
            mean, std = (value.flatten().tolist() for value in preprocessor.scale / 255)
            assert (mean, std) == (pytest.approx(entry.mean), pytest.approx(entry.std))


def test_finetuning_begins_with_weights_of_the_catalogue():
    tuned = [recipe(name).model for name in RECIPES if 'init' in recipe(name).model]
    assert {'dinat_large', 'cswin_large_224', 'litv2_b_384'} <= {model.name for model in tuned}
    for model in tuned:
        entry = entry_named(model.init)
        assert entry is not None
        assert family_of(entry.model) == family_of(model.name)


def test_configs_lie_with_their_family():
    for name in CONFIGS:
        model = recipe(name).model.name
        assert Path(name).stem.rpartition('_')[0] == model
        assert Path(name).parts[0] in (family_of(model), model.partition('_')[0])
        assert len((FOLDER / name).read_text().splitlines()) <= 25
