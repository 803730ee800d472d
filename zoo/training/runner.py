"""From a config to mmengine's Runner, with the mistakes of a config found before any work is done."""

import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

import zoo.training  # noqa: F401  fills the registries
from zoo.training.checks import check_channels, check_classes

NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
DATA_VARIABLE = 'ATTNZOO_DATA'


class QuietRunner(Runner):
    """mmengine's Runner whose console shows errors only; the log file in the work folder has everything.

    mmengine keeps loggers and histories by the name of the experiment, so every runner of a process gets its own.
    """

    numbers = itertools.count(1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {'experiment_name': f'run{next(self.numbers)}'})

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """The logger, its console handler at a higher level."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger


def read_config(path: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """A config file with its bases, and `overrides` by dotted name; `data_root` reaches every data set.

    Raises:
        ValueError: no such file, or it is no config.
    """
    if not Path(path).is_file():
        raise ValueError(f'there is no config file {path}')
    with mistakes_of(path):
        config = Config.fromfile(path)
        before = config.get('data_root')
        config.merge_from_dict(dict(overrides or {}))
    if before and config.data_root != before:  # as the configs of mmdet and mmseg have it, written out in many places
        for part in (*LOADERS, *EVALUATORS):
            if part in config:
                config[part] = moved(config[part], before, config.data_root)
    data_root = config.get('data_root') or os.environ.get(DATA_VARIABLE)
    for loader in LOADERS:
        dataset = (config.get(loader) or {}).get('dataset')
        if dataset is not None and data_root:
            dataset.setdefault('data_root', data_root)
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
    if config.get('launcher') == 'pytorch' and not torch.cuda.is_available():
        # mmengine would ask for a CUDA device before it opens the process group, and again for the wrapped model
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        config.setdefault('model_wrapper_cfg', {'broadcast_buffers': False, 'device_ids': None})
    with mistakes_of(origin):
        runner = QuietRunner.from_cfg(config)
        loops = [runner.train_loop] + ([] if config.get('val_cfg') is None else [runner.val_loop])
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    check_channels(runner.model, config.model)
    for loop in loops:
        check_classes(runner.model, loop.dataloader.dataset)
    return runner
