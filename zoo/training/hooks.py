"""What happens around the iterations of a run: its log, its checkpoints, its averaged weights, its result."""

import copy
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

import checkpoints

LOG_NAME = 'log.jsonl'


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file under a temporary name beside it and renames it, so that a reader never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@register_backend(name='AtomicLocalBackend')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written atomically: `CheckpointHook(backend_args=dict(backend='AtomicLocalBackend'))`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(filepath, obj)


@HOOKS.register_module()
class PlainCheckpoint(Hook):
    """Keeps the checkpoints of a run free of pickled classes, so that `torch.load(weights_only=True)` reads them.

    mmengine stores its logged values as `HistoryBuffer` objects; the file holds their arrays as tensors instead.
    """

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        hub = checkpoint['message_hub'] = copy.copy(checkpoint['message_hub'])
        hub['log_scalars'] = {
            name: [torch.from_numpy(np.asarray(column, dtype=np.float64)) for column in buffer.data]
            for name, buffer in hub['log_scalars'].items()
        }
        hub['runtime_info'] = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in hub['runtime_info'].items()
            if isinstance(value, (np.generic, int, float, str, list, tuple))
        }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        for name, columns in checkpoint.get('message_hub', {}).get('log_scalars', {}).items():
            if isinstance(columns, list):
                checkpoint['message_hub']['log_scalars'][name] = HistoryBuffer(*(each.numpy() for each in columns))


@HOOKS.register_module()
class WeightAverage(EMAHook):
    """mmengine's averaged weights (used for validation and in checkpoints), updated once per optimiser step."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


@HOOKS.register_module()
class RunLog(Hook):
    """One JSON line per epoch in `log.jsonl`, the same in words on the console, and a progress bar on a terminal.

    A resumed run drops the lines of the epochs that it repeats. The training loss is the mean over the epoch and all
    processes.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Any) -> None:
        self.path = Path(runner.work_dir) / LOG_NAME
        self.progress = None
        self.line: dict[str, Any] = {}
        if is_main_process():
            kept = [line for line in read_log(self.path) if line['epoch'] <= runner.epoch]
            write_atomically(self.path, ''.join(json.dumps(line) + '\n' for line in kept).encode())
            self.progress = progress_bar() if sys.stderr.isatty() else None

    def before_train_epoch(self, runner: Any) -> None:
        self.started, self.first = time.time(), runner.iter
        if self.progress:
            total = len(runner.train_loop.dataloader)
            self.bar = self.progress.add_task(f'epoch {runner.epoch + 1}/{runner.max_epochs}', total=total, loss='')
            self.progress.start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.progress:
            self.progress.update(self.bar, completed=batch_idx + 1, loss=f'loss {float(outputs["loss"]):.3f}')

    def after_train_epoch(self, runner: Any) -> None:
        if self.progress:
            self.progress.remove_task(self.bar)
            self.progress.stop()
        iterations = len(runner.train_loop.dataloader)
        history = runner.message_hub.log_scalars
        loss = torch.tensor(history['train/loss'].data[0][-iterations:].mean())
        all_reduce(loss, 'mean')
        seconds = time.time() - self.started
        batch = runner.train_loop.dataloader.batch_sampler.batches.batch_size * runner.world_size
        self.line = {
            'epoch': runner.epoch + 1,
            'iteration': runner.iter,
            'loss': loss.item(),
            'lr': max(runner.optim_wrapper.get_lr()['lr']),
            'seconds': round(seconds, 2),
            'images_per_second': round((runner.iter - self.first) * batch / seconds, 1),
            'data_share': round(mean_of_last(history, 'train/data_time', iterations)
                             / mean_of_last(history, 'train/time', iterations), 4),
        }  # fmt: skip
        if not self.validates(runner):
            self.write()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.line:
            self.line.update(metrics or {})
            self.write()

    def validates(self, runner: Any) -> bool:
        """Whether a validation follows the epoch that has just ended."""
        loop, epoch = runner.train_loop, runner.epoch + 1
        due = epoch >= loop.val_begin and (epoch % loop.val_interval == 0 or epoch == loop.max_epochs)
        return runner.val_loop is not None and due

    def write(self) -> None:
        """Appends the line of the epoch to the log and prints it."""
        line, self.line = self.line, {}
        if not is_main_process():
            return
        with self.path.open('a') as file:
            file.write(json.dumps(line) + '\n')
        print('  '.join(f'{name} {value:.4g}' if isinstance(value, float) else f'{name} {value}'
                        for name, value in line.items()), flush=True)  # fmt: skip


def mean_of_last(history: dict[str, HistoryBuffer], name: str, count: int) -> float:
    """Mean of the last `count` logged values of one name."""
    return float(history[name].data[0][-count:].mean())


def progress_bar() -> Any:
    """Rich's progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn('{task.fields[loss]}')
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


def read_log(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The complete lines of a `log.jsonl`; none when there is no such file."""
    path = Path(path)
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith('\n')]


@HOOKS.register_module()
class MatchingClasses(Hook):
    """Refuses to train a model whose number of classes is not that of the data."""

    def before_train(self, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        known = getattr(runner.train_loop.dataloader.dataset, 'metainfo', {}).get('classes', ())
        outputs = getattr(getattr(model, 'model', None), 'num_classes', None)
        if known and outputs is not None and outputs != len(known):
            raise ValueError(
                f'{model.name} has {outputs} classes, the training data {len(known)}: set model.num_classes'
            )


@HOOKS.register_module()
class ExportWeights(Hook):
    """Writes the final weights as `<model>.safetensors`: the averaged ones where weights are averaged."""

    priority = 'LOWEST'

    def after_train(self, runner: Any) -> None:
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        average = next((hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)), None)
        source = average.module if average is not None else model
        log = read_log(Path(runner.work_dir) / LOG_NAME)
        metadata = {
            'model': model.name,
            'config': str(runner.cfg.filename),
            'seed': str(runner.seed),
            'epochs': str(runner.max_epochs),
            'averaged': str(average is not None).lower(),
            'log': json.dumps(log[-1] if log else {}),
        }
        path = Path(runner.work_dir) / f'{model.name}.safetensors'
        checkpoints.save_safetensors(source.model.state_dict(), path, metadata)
        print(f'weights: {path}')
