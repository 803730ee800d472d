"""What a run leaves behind: checkpoints to go on from, averaged weights, and the final weights as safetensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.utils import apply_to

import checkpoints
from checkpoints.files import replacing
from zoo.training.classifier import Classifier
from zoo.training.log import LOG_NAME, read_log, validation_follows
from zoo.training.loops import raw


@register_backend(name='AtomicLocalBackend')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, complete or not there at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with replacing(Path(filepath)) as temporary:
            temporary.write_bytes(obj)


@HOOKS.register_module()
class RunCheckpoints(Hook):
    """Saves `epoch_N.pth`, `iter_N.pth` and `best.pth`, atomically and free of pickled classes.

    An epoch's file is written after its validation, so that it knows the best score. An old file goes when the new one
    is complete.

    Args:
        epochs: a checkpoint every so many epochs, and after the last one.
        iterations: also one every so many iterations, in the middle of an epoch.
        keep: how many of the newest to keep, `best.pth` not counted.
        best: name of the metric whose largest value marks the best weights; without one there is no `best.pth`.
    """

    priority = 'VERY_LOW'

    def __init__(
        self, epochs: int = 1, iterations: int | None = None, keep: int = 2, best: str | None = 'top1'
    ) -> None:
        self.epochs, self.iterations, self.keep, self.best = epochs, iterations, keep, best

    def before_train(self, runner: Any) -> None:
        steps = runner.optim_wrapper._accumulative_counts
        if self.iterations and self.iterations % steps:
            raise ValueError(
                f'a checkpoint every {self.iterations} iterations would lose gradients: name a multiple of '
                f'accumulative_counts={steps}'
            )

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        done = runner.iter + 1
        if self.iterations and done % self.iterations == 0:
            self.save(runner, f'iter_{done}.pth', epoch=runner.epoch, iter=done)

    def after_train_epoch(self, runner: Any) -> None:
        if not validation_follows(runner):
            self.save_epoch(runner, runner.epoch + 1)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        score = (metrics or {}).get(self.best or '')
        if score is not None and score > runner.message_hub.runtime_info.get('best_score', float('-inf')):
            runner.message_hub.update_info('best_score', float(score))
            self.save(runner, 'best.pth', optimizer=False, epoch=runner.epoch, iter=runner.iter)
        self.save_epoch(runner, runner.epoch)

    def save_epoch(self, runner: Any, done: int) -> None:
        """Saves after `done` epochs when it is time to."""
        if done % self.epochs == 0 or done == runner.max_epochs:
            self.save(runner, f'epoch_{done}.pth', epoch=done, iter=runner.iter)

    def save(self, runner: Any, name: str, optimizer: bool = True, **position: int) -> None:
        """Writes one checkpoint, then removes those that are too many."""
        runner.save_checkpoint(
            runner.work_dir,
            name,
            save_optimizer=optimizer,
            save_param_scheduler=optimizer and runner.param_schedulers is not None,
            meta=position,
            backend_args={'backend': 'AtomicLocalBackend'},
        )
        if is_main_process():
            for path in saved(runner.work_dir)[self.keep :]:
                path.unlink()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['message_hub'] = apply_to(checkpoint['message_hub'], has_class, plain)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, columns in scalars.items():
            if isinstance(columns, list):
                scalars[name] = HistoryBuffer(*(column.cpu().numpy() for column in columns))


def has_class(value: Any) -> bool:
    """Whether it is an object that `torch.load(weights_only=True)` refuses, of those that mmengine logs."""
    return isinstance(value, (HistoryBuffer, np.generic))


def plain(value: HistoryBuffer | np.generic) -> Any:
    """The numbers in such an object: two tensors, or a number."""
    if isinstance(value, HistoryBuffer):
        return [torch.from_numpy(np.asarray(column, dtype=np.float64)) for column in value.data]
    return value.item()


def saved(work_dir: str | Path) -> list[Path]:
    """The checkpoints of a run from which it can go on, the newest first."""
    found = [path for pattern in ('epoch_*.pth', 'iter_*.pth') for path in Path(work_dir).glob(pattern)]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


@HOOKS.register_module()
class WeightAverage(EMAHook):
    """mmengine's averaged weights, used for validation and in checkpoints, updated once per optimiser step."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


@HOOKS.register_module()
class ExportWeights(Hook):
    """Writes the final weights as `<model>.safetensors`, or, of a detector or segmentor, as `<config>.safetensors`.

    They are the averaged ones where weights are averaged.
    """

    priority = 'LOWEST'

    def after_train(self, runner: Any) -> None:
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        average = next((hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)), None)
        log = read_log(Path(runner.work_dir) / LOG_NAME)
        dataset = raw((runner.val_loop or runner.train_loop).dataloader.dataset)
        config = Path(runner.cfg.filename or '')
        name = model.name if isinstance(model, Classifier) else config.stem
        metadata = {
            'model': name,
            'config': config.name,
            'seed': str(runner.seed),
            'epochs': str(runner.max_epochs),
            'averaged': str(average is not None).lower(),
            'log': json.dumps(log[-1] if log else {}),
        }
        if isinstance(model, Classifier):
            metadata['pretrained_cfg'] = json.dumps(describe(model, dataset))
        path = Path(runner.work_dir) / f'{name}.safetensors'
        # a classifier's state dict has the names of timm's model, a detector's those of mmdet
        checkpoints.save_safetensors((average.module if average else model).state_dict(), path, metadata)
        print(f'weights: {path}')


def describe(model: Any, dataset: Any) -> dict[str, Any]:
    """What a model needs to know of its images later, by the names of timm's `pretrained_cfg`."""
    mean, std = (
        [round(value, 6) for value in (each.flatten() / 255).tolist()] for each in model.data_preprocessor.scale
    )
    entries = {'input_size': list(dataset[0]['inputs'].shape), **dataset.preparation, 'mean': mean, 'std': std}
    return entries | {'label_names': list(dataset.metainfo['classes'])}
