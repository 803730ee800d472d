"""From a config to mmengine's Runner, with the mistakes of a config found before any work is done."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

import zoo.training  # noqa: F401  fills the registries

NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')


class QuietRunner(Runner):
    """mmengine's Runner whose console shows warnings only; the log file in the work folder has everything."""

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(max(handler.level, logging.WARNING))
        return logger


def read_config(path: str, overrides: dict | None = None) -> Config:
    """A config file with its bases, and `overrides` by dotted name; `data_root` reaches every data set.

    Raises:
        ValueError: no such file, not a valid config, or a needed key is missing.
    """
    if not Path(path).is_file():
        raise ValueError(f'no config file {path}')
    config = Config.fromfile(path)
    config.merge_from_dict(overrides or {})
    missing = [key for key in NEEDED if config.get(key) is None]
    if missing:
        raise ValueError(f'{path} does not define {", ".join(missing)}')
    data_root = config.get('data_root') or os.environ.get('ATTNZOO_DATA')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = (config.get(loader) or {}).get('dataset')
        if dataset is not None and data_root:
            dataset.setdefault('data_root', data_root)
    return config


def build_runner(config: Config) -> Runner:
    """The runner of a config; under torchrun (`launcher='pytorch'`) on machines without CUDA, through gloo."""
    if config.get('launcher', 'none') == 'pytorch' and not torch.cuda.is_available():
        # mmengine would ask for a CUDA device before it opens the process group
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        config.setdefault('model_wrapper_cfg', {'type': 'MMDistributedDataParallel', 'broadcast_buffers': False})
    return QuietRunner.from_cfg(config)


def newest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """The complete checkpoint of a run with the most iterations, by its file's time; None before the first one."""
    found = [path for path in Path(work_dir).glob('*.pth') if not path.name.startswith('best_')]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None
