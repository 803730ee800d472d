import functools
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

import zoo
from tests.training.conftest import ROOT
from zoo.training.runner import NEEDED, read_config

FOLDER = ROOT / 'configs' / 'classification'
CONFIGS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob('*.py') if path.name != '__init__.py')
DROP_PATH = {'mini': 0.2, 'tiny': 0.2, 'small': 0.3, 'base': 0.5, 'large': 0.35}


@functools.cache
def recipe(name: str):
    return read_config(str(FOLDER / name), {'data_root': '/data'})


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name):
    config = recipe(name)
    assert all(config.get(key) for key in NEEDED)
    assert len((FOLDER / name).read_text().splitlines()) <= 25
    if config.model.name in ('dinat_large', 'dinat_large_384', 'dinat_large_384_11x11', 'dinat_s_large'):
        assert config.model.init.startswith('https://')
    with torch.device('meta'):
        classifier = MODELS.build(dict(config.model, pretrained=False))
    data, preprocessor = config.train_dataloader, classifier.data_preprocessor
    assert classifier.model.num_classes == (1000 if data.dataset.type == 'FolderDataset' else 10)
    assert (preprocessor.mixup is not None) == (config.model.loss.type == 'soft_target')
    wrapper = dict(config.optim_wrapper, type='OptimWrapper')
    wrapper.pop('dtype', None)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get(wrapper.pop('constructor'))
    groups = constructor(wrapper)(classifier).optimizer.param_groups
    grouped = [id(weight) for group in groups for weight in group['params']]
    assert len(set(grouped)) == len(grouped) == len(list(classifier.parameters()))
    names = {id(weight): name for name, weight in classifier.named_parameters()}
    for group in groups:
        if group['weight_decay']:
            assert not [names[id(weight)] for weight in group['params'] if 'rpb' in names[id(weight)]]


def test_every_model_of_the_papers_has_a_recipe():
    trained = {recipe(name).model.name for name in CONFIGS}
    assert {name for name in zoo.list_models() if '21k' not in name} <= trained


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.endswith('_imagenet.py')])
def test_recipe_has_the_numbers_of_the_authors(name):
    config = recipe(name)
    model, size = config.model, next(size for size in DROP_PATH if size in config.model.name)
    optimizer = config.optim_wrapper.optimizer
    isotropic = 'isotropic' in model.name or 'vitrpb' in model.name
    assert model.drop_path_rate == ({'small': 0.1, 'base': 0.4}[size] if isotropic else DROP_PATH[size])
    assert config.optim_wrapper.clip_grad.max_norm == 5.0
    assert config.train_dataloader.dataset.transform.auto_augment == 'rand-m9-mstd0.5-inc1'
    assert config.train_dataloader.dataset.transform.input_size == (384 if '384' in model.name else 224)
    assert config.val_dataloader.dataset.transform.crop_pct == (1.0 if '384' in model.name else 0.875)
    if size == 'large':
        assert (optimizer.lr, config.train_cfg.max_epochs, config.train_dataloader.batch_size) == (5e-5, 30, 64)
        decays = {'dinat_large': 1e-4, 'dinat_s_large': 1e-4, 'dinat_s_large_384': 1e-5}
        assert optimizer.weight_decay == decays.get(model.name, 1e-10)
        return
    assert (optimizer.lr, optimizer.weight_decay) == (1e-3, 0.05)
    assert (config.train_cfg.max_epochs, config.train_dataloader.batch_size) == (310, 128)
    warmup, cosine = config.param_scheduler
    assert (warmup.end, cosine.T_max, cosine.eta_min) == (50 if isotropic and size == 'base' else 20, 300, 5e-6)
    averaged = [1 - hook.momentum for hook in config.get('custom_hooks', ())]
    assert averaged == ([0.9998] if isotropic and size == 'base' else [])


def test_configs_lie_with_their_family():
    for name in CONFIGS:
        assert recipe(name).model.name in Path(name).name
        assert (ROOT / 'zoo' / 'families' / f'{Path(name).parts[0]}.py').exists() or name.startswith('dinat/')
