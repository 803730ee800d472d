"""How long it takes until something can run: the import, and the making of a model."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial

import torch

from zoo.benchmark.case import fill_times
from zoo.benchmark.models import make_model, own_side
from zoo.benchmark.rows import Row, Target
from zoo.benchmark.suites import CREATED, CREATION_BOUND, IMPORT_BOUND
from zoo.benchmark.timing import Rounds, Spread, Task, interleave
from zoo.benchmark.work import Setting

CPU = torch.device('cpu')


def startup(rounds: Rounds, created: Mapping[str, str] = CREATED) -> Iterator[list[Row]]:
    """The rows of the import, then those of each pair of models, ours and timm's, that are made for their own size."""
    yield [import_row(rounds)]
    for ours, theirs in created.items():
        yield creation_rows(ours, theirs, rounds)


def import_row(rounds: Rounds) -> Row:
    """Seconds that a fresh interpreter takes for `import zoo` beyond those for `import timm`, in turns."""
    tasks: dict[str, Task] = {
        name: partial(subprocess.run, [sys.executable, '-c', f'import {name}'], check=True) for name in ('timm', 'zoo')
    }
    samples = interleave(tasks, CPU, rounds)
    beyond = Spread.of([mine - theirs for mine, theirs in zip(samples['zoo'], samples['timm'])])
    row = Row('startup', 'import, seconds beyond timm', 'zoo', 'timm', device=CPU.type, rounds=len(samples['zoo']))
    row.value = beyond.median
    row.judge([Target('value', IMPORT_BOUND)])
    return row


def creation_rows(ours: str, theirs: str, rounds: Rounds) -> list[Row]:
    """Seconds of `create_model` with random weights, ours relative to timm's."""
    tasks: dict[str, Task] = {name: partial(make_model, name, own_side(name)) for name in (theirs, ours)}
    setting = Setting()
    rows = {
        name: Row('startup', f'create_model: {ours}', name, theirs, device=setting.device, dtype=setting.dtype)
        for name in tasks
    }
    fill_times(rows, interleave(tasks, CPU, rounds))
    rows[ours].judge([Target('ratio', CREATION_BOUND)])
    return list(rows.values())
