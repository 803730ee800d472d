"""Scores of a config's model, whatever its task, or of any timm model, through mmengine's test loop."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from timm.data import resolve_model_data_config

from zoo.inference import load_classifier, resize_input
from zoo.training.checks import check_channels, check_data, check_paths
from zoo.training.classifier import Classifier
from zoo.training.runner import DENSE, QuietRunner, mistakes_of
from zoo.weights import load_checkpoint

BATCH, WORKERS = 64, 2
SPLITS = ('test', 'val', 'validation')
"""Names of the split that is tested when none is asked for, the first that is there."""


def tester(config: Config, work_dir: str) -> Runner:
    """The runner of the test parts of a config: nothing to train, no picture of it, its log in `work_dir`."""
    with mistakes_of(str(config.filename)):
        return QuietRunner(
            model=config.model,
            work_dir=work_dir,
            test_dataloader=config.test_dataloader,
            test_evaluator=config.test_evaluator,
            test_cfg=config.get('test_cfg') or {'type': 'TestLoop'},
            env_cfg=config.get('env_cfg', {}),
            default_scope=config.get('default_scope', 'mmengine'),
        )


def config_tester(config: Config, weights: str, work_dir: str) -> Runner:
    """The runner that tests the model of a training config, with weights, on its test data, else its validation data.

    Args:
        config: as `read_config` gives it.
        weights: 'pretrained', or what `checkpoints.locate` finds.
        work_dir: folder of the log files.

    Raises:
        ValueError: no test data in the config, weights that do not cover the model, or classes that differ.
    """
    for part in ('dataloader', 'evaluator'):
        config[f'test_{part}'] = config.get(f'test_{part}') or config.get(f'val_{part}')
        if config[f'test_{part}'] is None:
            raise ValueError(f'{config.filename} defines neither test_{part} nor val_{part}')
    dense = config.get('default_scope') in DENSE
    if dense and weights == 'pretrained':
        from zoo.openmmlab.weights import weights_of

        weights = weights_of(config.filename)
    elif weights == 'pretrained':
        config.model.pretrained = True
    check_paths(config.test_dataloader)
    runner = tester(config, work_dir)
    model: Any = runner.model
    if dense:
        from zoo.openmmlab.weights import load_checkpoint as load_dense

        load_dense(model, weights)
    elif weights != 'pretrained':
        load_checkpoint(model.model if isinstance(model, Classifier) else model, weights)
    check_channels(model, config.model)
    check_data(model, runner.test_loop.dataloader.dataset)
    return runner


def model_tester(
    name: str, weights: str, dataset: dict, work_dir: str, img_size: int | None = None, crop_pct: float | None = None
) -> Runner:
    """The runner that tests any model of timm or the zoo, prepared as its weights were trained, on a data set.

    Args:
        name: model name.
        weights: 'pretrained', or what `checkpoints.locate` finds.
        dataset: what `dataset_at` gives.
        work_dir: folder of the log files.
        img_size: side of the images in pixels, the model's own when None.
        crop_pct: share of the resized image that is cropped, the model's own when None.

    Raises:
        ValueError: weights that do not cover the model, classes that differ, or a size that it cannot take.
    """
    model = load_classifier(name, weights)
    data = resolve_model_data_config(model, use_test_size=weights == 'pretrained')
    if img_size:
        resize_input(model, img_size)
        data['input_size'] = (3, img_size, img_size)
    if dataset['type'] == 'FolderDataset':
        transform = {key: data[key] for key in ('input_size', 'interpolation', 'crop_mode')}
        dataset = dataset | {'transform': transform | {'crop_pct': crop_pct or data['crop_pct']}}
        loader = {'num_workers': WORKERS, 'collate_fn': {'type': 'default_collate'}}
    else:
        loader = {'num_workers': 0, 'collate_fn': {'type': 'take_batch'}}
    sampler = {'type': 'DefaultSampler', 'shuffle': False}
    preprocessor = {'type': 'ImagePreprocessor', 'mean': data['mean'], 'std': data['std']}
    parts = {
        'model': {'type': 'Classifier', 'name': name, 'data_preprocessor': preprocessor},
        'test_dataloader': loader | {'batch_size': BATCH, 'dataset': dataset, 'sampler': sampler},
        'test_evaluator': {'type': 'Accuracy'},
    }
    runner = tester(Config(parts), work_dir)
    runner.model.model = model.to(get_device())
    check_data(runner.model, runner.test_loop.dataloader.dataset)
    return runner


def dataset_at(path: str, split: str | None = None) -> dict:
    """Config of the data at a path: an .npz file, or a folder of class folders or of splits.

    Args:
        path: file or folder.
        split: name of the split; the first of `SPLITS` that is there when None, a folder may have none.

    Raises:
        ValueError: nothing there, or no such split.
    """
    place = Path(path)
    if place.suffix == '.npz' and place.is_file():
        with np.load(place) as arrays:
            found = [name for name in SPLITS if any(key.startswith(f'{name}_') for key in arrays)]
        if not split and not found:
            raise ValueError(f'{place} has no split named {", ".join(SPLITS)}: name one')
        return {'type': 'NpzDataset', 'data_root': str(place.parent), 'file': place.name, 'split': split or found[0]}
    if not place.is_dir():
        raise ValueError(f'there is neither a folder nor an .npz file {place}')
    inside = [name for name in SPLITS if (place / name).is_dir()]
    return {'type': 'FolderDataset', 'data_root': str(place), 'folder': split or (inside[0] if inside else '')}
