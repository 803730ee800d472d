"""The record of a run: a JSON line per epoch, the same in words on the console, a progress bar, a learning curve."""

import json
import os
import sys
import time
from bisect import bisect
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS

from checkpoints.files import replacing
from zoo.visualize import draw_curve, save_figure

LOG_NAME, CURVE_NAME = 'log.jsonl', 'curve.png'


@HOOKS.register_module()
class RunLog(Hook):
    """Writes `log.jsonl` and `curve.png` into the work folder; the bar is drawn only where stderr is a terminal.

    The training loss is the mean over the epoch and all processes. A resumed run drops the lines of the epochs that it
    is about to repeat.
    """

    priority = 'LOW'  # before the checkpoint, so that a run that goes on from it finds the line in the log

    def __init__(self) -> None:
        self.line: dict[str, Any] = {}
        self.progress: Any = None

    def before_train(self, runner: Any) -> None:
        if is_main_process():
            self.path = Path(runner.work_dir) / LOG_NAME
            kept = [line for line in read_log(self.path) if line['epoch'] <= runner.epoch]
            with replacing(self.path) as temporary:
                temporary.write_text(''.join(json.dumps(line) + '\n' for line in kept))
            self.progress = progress_bar() if sys.stderr.isatty() else None

    def before_train_epoch(self, runner: Any) -> None:
        self.started, self.first = time.time(), runner.iter
        if self.progress:
            total = runner.train_loop.begin(runner.epoch + 1) - runner.train_loop.begin(runner.epoch)
            self.bar = self.progress.add_task(f'epoch {runner.epoch + 1}/{runner.max_epochs}', total=total, loss='')
            self.progress.start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.progress:
            self.progress.update(self.bar, completed=batch_idx + 1, loss=f'loss {outputs["loss"].item():.3f}')

    def after_train_epoch(self, runner: Any) -> None:
        if self.progress:
            self.progress.stop()
            self.progress.remove_task(self.bar)
        seconds = time.time() - self.started
        iterations = runner.iter - runner.train_loop.begin(runner.epoch)
        history = runner.message_hub.log_scalars
        loss = torch.tensor(mean_of_last(history['train/loss'], iterations))
        all_reduce(loss, 'mean')
        images = (runner.iter - self.first) * runner.train_loop.dataloader.batch_sampler.batch_size * runner.world_size
        waited = mean_of_last(history['train/data_time'], iterations) / mean_of_last(history['train/time'], iterations)
        self.line = {
            'epoch': runner.epoch + 1,
            'iteration': runner.iter,
            'loss': loss.item(),
            'lr': max(runner.optim_wrapper.get_lr()['lr']),
            'seconds': round(seconds, 2),
            'images_per_second': round(images / seconds, 1),
            'data_share': round(waited, 4),
        }
        if not validation_follows(runner):
            self.write()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        if self.line:
            self.line.update(metrics or {})
            self.write()

    def after_train(self, runner: Any) -> None:
        if is_main_process():
            log = read_log(self.path)
            if log:
                save_figure(draw_curve(log), self.path.with_name(CURVE_NAME))

    def write(self) -> None:
        """Appends the line of the epoch to the log and prints it."""
        line, self.line = self.line, {}
        if is_main_process():
            with self.path.open('a') as file:
                file.write(json.dumps(line) + '\n')
            numbers = ((name, f'{value:.4g}' if isinstance(value, float) else value) for name, value in line.items())
            print('  '.join(f'{name} {number}' for name, number in numbers), flush=True)


def validation_follows(runner: Any) -> bool:
    """Whether the epoch that has just ended is followed by a validation."""
    loop, epoch = runner.train_loop, runner.epoch + 1
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, epoch + 1) - 1]
    due = epoch >= loop.val_begin and (epoch % interval == 0 or epoch == loop.max_epochs)
    return runner.val_loop is not None and due


def mean_of_last(buffer: HistoryBuffer, count: int) -> float:
    """Mean of the last `count` logged values."""
    return float(buffer.data[0][-count:].mean())


def progress_bar() -> Any:
    """A bar on stderr, made by rich, that vanishes when it stops."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn('{task.fields[loss]}')
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)


def read_log(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The complete lines of a `log.jsonl`; none when there is no such file."""
    path = Path(path)
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith('\n')]
