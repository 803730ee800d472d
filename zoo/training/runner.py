"""From a config to mmengine's Runner, with the mistakes of a config found before any work is done."""

import io
import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn

import zoo.training  # noqa: F401  fills the registries
from zoo.training.checks import annotation_file, annotations_read, check_channels, check_data, check_paths, datasets_of
from zoo.training.loops import raw

# where mmengine looks for bases such as mmseg::_base_/models/upernet_r50.py: the maintained fork is no `mmsegmentation`
MODULE2PACKAGE['mmseg'] = 'mmseg'

NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
DATA_VARIABLE = 'ATTNZOO_DATA'
DENSE = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}
"""Scopes of the detectors and segmentors, with the score that tells the best weights."""


class QuietEvaluator(Evaluator):
    """mmengine's evaluator without the talk of its metrics; the scores of COCO are percentages like all others.

    Scores of sizes that no object has, which COCO marks with -1, are left out.
    """

    def evaluate(self, size: int) -> dict[str, Any]:
        with redirect_stdout(io.StringIO()):
            scores = super().evaluate(size)
        return {
            name: float(100 * score if name.startswith('coco/') else score)
            for name, score in scores.items()
            if not (name.startswith('coco/') and score == -1)
        }


class QuietRunner(Runner):
    """mmengine's Runner whose console shows errors only; the log file in the work folder has everything.

    mmengine keeps loggers and histories by the name of the experiment, so every runner of a process gets its own.
    """

    numbers = itertools.count(1)
    _has_loaded: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {'experiment_name': f'run{next(self.numbers)}'})

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """The logger, its console handler at a higher level."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger

    def build_model(self, model: Any) -> nn.Module:
        """The model; batch norms over all processes, which CPUs do not have, are plain ones without CUDA."""
        model = super().build_model(model)
        if torch.cuda.is_available():
            return model
        if any(type(module).__name__ == 'SyncBatchNorm' for module in model.modules()):
            self.logger.info('no CUDA device: SyncBN is plain BN, each process with the statistics of its own images')
        return revert_sync_batchnorm(model)

    def build_evaluator(self, evaluator: Any) -> Evaluator:
        """A `QuietEvaluator` of the metrics of a config."""
        with redirect_stdout(io.StringIO()):
            return evaluator if isinstance(evaluator, Evaluator) else QuietEvaluator(evaluator)

    def load_or_resume(self) -> None:
        """Loads `load_from` into a detector or segmentor as a whole; else as mmengine, which takes what fits."""
        if self._load_from and not (self._resume or self._has_loaded) and self.default_scope.scope_name in DENSE:
            from zoo.openmmlab.weights import load_checkpoint

            load_checkpoint(self.model, self._load_from, other_classes=True)
            self._has_loaded = True
        super().load_or_resume()

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """The loader; a damaged annotation file is named."""
        with redirect_stdout(io.StringIO()), annotations_read(dataloader):
            return Runner.build_dataloader(dataloader, *args, **kwargs)


def read_config(path: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """A config file with its bases, and `overrides` by dotted name.

    `data_root` reaches every data set, and the annotation file of a data set those who measure on it.

    Raises:
        ValueError: no such file, or it is no config.
    """
    if not Path(path).is_file():
        raise ValueError(f'there is no config file {path}')
    with mistakes_of(path):
        # every checkpoint holds the text of the config, and yapf takes a second for it
        config = Config.fromfile(path, format_python_code=False)
        before = config.get('data_root')
        config.merge_from_dict(dict(overrides or {}))
    if before and config.data_root != before:  # as the configs of mmdet and mmseg have it, written out in many places
        for part in (*LOADERS, *EVALUATORS):
            if part in config:
                config[part] = moved(config[part], before, config.data_root)
    if 'data_preprocessor' in config:  # where mmengine puts it when it trains, and only then
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    if config.get('default_scope') in DENSE:
        import zoo.openmmlab  # noqa: F401  their operators and our backbones

        with redirect_stdout(io.StringIO()):  # they say what else could be installed
            import_module(f'{config.default_scope}.datasets')
    data_root = config.get('data_root') or os.environ.get(DATA_VARIABLE)
    for loader in filter(config.get, LOADERS):
        for dataset in datasets_of(config[loader]):
            if data_root:
                dataset.setdefault('data_root', data_root)
        evaluator = config.get(loader.replace('dataloader', 'evaluator')) or []
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            same = ('Panoptic' in metric['type']) == ('Panoptic' in dataset['type'])
            if 'ann_file' in metric and annotation_file(dataset) and same:
                metric['ann_file'] = str(annotation_file(dataset))
            if 'seg_prefix' in metric:
                metric['seg_prefix'] = str(Path(dataset.get('data_root') or '', dataset['data_prefix']['seg']))
    return config


def moved(value: Any, before: str, after: str) -> Any:
    """A part of a config whose paths in the folder `before` are in the folder `after`."""
    if isinstance(value, Mapping):
        return {key: moved(entry, before, after) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(entry, before, after) for entry in value)
    inside = isinstance(value, str) and value.startswith(before)
    return os.path.join(after, value.removeprefix(before).lstrip('/')) if inside else value


@contextmanager
def mistakes_of(path: str) -> Iterator[None]:
    """Turns what a wrong config raises while it is read or built into one ValueError that names the config."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename is None:  # with the words of the data set itself
            raise
        raise ValueError(f'{path}: there is no {error.filename}: set data_root') from error
    except (KeyError, TypeError, AttributeError, AssertionError, SyntaxError, NameError, RuntimeError) as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error  # without the quotes of a key
        raise ValueError(f'{path}: {reason}') from error


def trainer(config: Config) -> Runner:
    """The runner of a config, with model, data and optimiser built.

    With `launcher = 'pytorch'` (under torchrun) and no CUDA device the processes talk through gloo.

    Raises:
        ValueError: a needed key is missing, a value does not fit, or the classes of data and model differ.
    """
    origin = str(config.filename)
    missing = [key for key in NEEDED if config.get(key) is None]
    if missing:
        raise ValueError(f'{origin} does not define {", ".join(missing)}')
    if config.get('default_scope') in DENSE:
        adopt(config)
    if config.get('launcher') == 'pytorch' and not torch.cuda.is_available():
        # mmengine would ask for a CUDA device before it opens the process group, and again for the wrapped model
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        unused = config.get('find_unused_parameters', False)
        wrapper = {'broadcast_buffers': False, 'device_ids': None, 'find_unused_parameters': unused}
        config.setdefault('model_wrapper_cfg', wrapper)
        config.sync_bn = None
    parts = ['train'] + ([] if config.get('val_cfg') is None else ['val'])
    for part in parts:
        check_paths(config[f'{part}_dataloader'])
    with mistakes_of(origin):
        runner = QuietRunner.from_cfg(config)
        check_channels(bare_model(runner), config.model)
        for part in parts:
            loader = getattr(runner, f'{part}_loop').dataloader
            check_data(bare_model(runner), raw(loader.dataset))
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    return runner


def adopt(config: Config) -> None:
    """Gives a config of mmdet or mmseg the loop, the checkpoints and the record of this project for mmengine's own."""
    loop, hooks = config.train_cfg, config.setdefault('default_hooks', {})
    if loop.get('type') == 'IterBasedTrainLoop':
        loop.type = 'ResumableIterLoop'
    elif loop.get('type') == 'EpochBasedTrainLoop':
        loop.type = 'ResumableEpochLoop'
    sampler = config.train_dataloader.get('sampler', {})
    if sampler.get('type') == 'InfiniteSampler':  # it cannot go back to a position
        sampler.type = 'DefaultSampler'
    if hooks.get('checkpoint', {}).get('type', 'CheckpointHook') == 'CheckpointHook':
        kept = hooks.get('checkpoint', {}).get('max_keep_ckpts', 2)
        panoptic = 'Panoptic' in str(config.get('val_evaluator'))
        best = 'coco_panoptic/PQ' if panoptic else DENSE[config.default_scope]
        hooks['checkpoint'] = dict(type='RunCheckpoints', keep=kept, best=best)
    hooks.setdefault('log', dict(type='RunLog'))
    hooks.setdefault('export', dict(type='ExportWeights'))


def bare_model(runner: Runner) -> Any:
    """The model of a runner without what wraps it for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
