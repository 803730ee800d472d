"""Whether the chooser of backends, a rule, picks what a trial would: every backend over a grid of cases.

A choice is right when no backend that can run is faster by more than the margin.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ops._backends import Backend, choose
from ops.routed.bilevel_routing import BACKENDS as ROUTED
from ops.window.neighborhood import BACKENDS as NEIGHBORHOOD
from ops.window.neighborhood.functional import make_window
from zoo.benchmark.case import Case
from zoo.benchmark.operators import Map
from zoo.benchmark.rows import Record, Row, Target
from zoo.benchmark.suites import CHOICE_BOUND, CHOICE_MARGIN
from zoo.benchmark.work import MODES, TRAINING, Setting, Work

MAPS = ('56x56x2', '28x28x4', '14x14x8', '7x7x16')
BATCHES = (1, 8)
KERNELS = (3, 7)
REGIONS = 7
TOPK = (1, 4, 16)
SUITE = 'choice'


def choices(setting: Setting, modes: Sequence[str] = MODES, maps: Sequence[str] = MAPS) -> Iterator[Case]:
    """A case per call and mode, the chosen backend first."""
    for text, batch, kernel_size, biased, mode in product(maps, BATCHES, KERNELS, (False, True), modes):
        size = Map.parse(text)
        for dilation in sorted({1, min(size.height, size.width) // kernel_size}):
            call = neighborhood_call(size, batch, kernel_size, dilation, biased, setting)
            name = f'na2d: {size}, kernel {kernel_size}, dilation {dilation}, {"bias, " if biased else ""}batch {batch}'
            yield choice(name, NEIGHBORHOOD, call, mode, setting, batch, size)
    for text, batch, topk, mode in product(maps, BATCHES, TOPK, modes):
        size = Map.parse(text)
        call = routed_call(size, batch, topk, setting)
        yield choice(
            f'routed_attention: {size}, {REGIONS}x{REGIONS} regions, topk {topk}, batch {batch}',
            ROUTED,
            call,
            mode,
            setting,
            batch,
            size,
        )


def neighborhood_call(
    size: Map, batch: int, kernel_size: int, dilation: int, biased: bool, setting: Setting
) -> tuple[Any, ...]:
    """Arguments of a backend of neighborhood attention."""
    shape = (batch, size.height, size.width, size.heads, size.head_dim)
    q, k, v = (torch.randn(shape, **setting.where, requires_grad=True) for _ in range(3))
    table = (size.heads, 2 * kernel_size - 1, 2 * kernel_size - 1)
    bias = torch.randn(table, **setting.where, requires_grad=True) if biased else None
    return q, k, v, make_window(2, kernel_size, dilation=dilation), size.head_dim**-0.5, bias, 0.0


def routed_call(size: Map, batch: int, topk: int, setting: Setting) -> tuple[Any, ...]:
    """Arguments of a backend of routed attention."""
    regions = REGIONS**2
    shape = (batch, regions, size.height * size.width // regions, size.heads, size.head_dim)
    q, k, v = (torch.randn(shape, **setting.where, requires_grad=True) for _ in range(3))
    routes = torch.rand(batch, regions, regions, device=setting.device).topk(topk).indices
    return q, k, v, routes, None, size.head_dim**-0.5, 0.0


def choice(
    name: str, backends: Sequence[Backend], call: tuple[Any, ...], mode: str, setting: Setting, batch: int, size: Map
) -> Case:
    """Every backend on the same call; the one that the rule chooses is the baseline."""
    with torch.set_grad_enabled(mode == TRAINING):
        run = choose(backends, None, *call)
    ordered = sorted(backends, key=lambda backend: backend.run is not run)
    candidates: dict[str, Callable[[], Work]] = {
        backend.name: partial(backend_work, backend, call, setting) for backend in ordered
    }
    return Case(SUITE, name, mode, setting, batch, (size.height, size.width), candidates)


def backend_work(backend: Backend, call: tuple[Any, ...], setting: Setting) -> Work:
    """One backend on a call.

    Raises:
        ValueError: it cannot serve the call.
    """
    if reason := backend.why_not(*call):
        raise ValueError(reason)
    learned = [x for x in call if isinstance(x, Tensor) and x.requires_grad]
    work = Work(lambda *_: backend.run(*call), learned, learned)
    return work.compiled() if setting.compiled else work


def share_of_right(records: Sequence[Record]) -> list[Row]:
    """For each operator the share of the cases in which the choice was right."""
    fastest: dict[tuple[str, ...], float] = defaultdict(lambda: 1.0)
    for record in records:
        if record['suite'] == SUITE and record['ratio']:
            key = tuple(record[name] for name in ('case', 'mode', 'device', 'dtype', 'compiled'))
            fastest[key] = min(fastest[key], float(record['ratio']))
    by_operator: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for (case, _, *where), ratio in fastest.items():
        by_operator[(case.partition(':')[0], *where)].append(ratio)
    rows = []
    for (operator, device, dtype, compiled), ratios in by_operator.items():
        case = f'{operator}: share of cases where no backend is faster than the chosen by {CHOICE_MARGIN - 1:.0%}'
        row = Row(SUITE, case, 'chooser', device=device, dtype=dtype, compiled=compiled == 'True')
        row.note = f'{len(ratios)} cases'
        row.value = sum(ratio * CHOICE_MARGIN >= 1 for ratio in ratios) / len(ratios)
        row.judge([Target('value', CHOICE_BOUND, at_least=True)])
        rows.append(row)
    return rows
