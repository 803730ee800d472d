"""Drawings of what was measured: over resolution, quoted accuracy over throughput, beside the authors' code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle, product
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints import catalogue, families
from zoo.benchmark.rows import Record, is_compared
from zoo.benchmark.suites import AUTHORS
from zoo.benchmark.work import FORWARD, TRAINING
from zoo.visualize.canvas import BLUE, FAINT, INK, MUTED, ORANGE, caption, new_figure, quiet, save_figure
from zoo.visualize.overlay import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {'per_second': 'Throughput, per second', 'peak_bytes': 'Peak memory, MiB'}
SCALE = {'per_second': 1.0, 'peak_bytes': 2.0**-20}
STYLES = (('-', 'o'), ('--', 's'), (':', '^'))
"""Lines and marks, each in all colours before the next."""


def draw_all(records: Sequence[Record], folder: Path) -> list[Path]:
    """Writes a drawing for every suite, mode and batch of two sizes or more, and of accuracy where it is quoted.

    What was measured beside the authors' code has one drawing of its own instead.
    """
    written = []
    beside = [record for record in records if record['suite'] == 'authors' and is_compared(record)]
    if beside:
        written.append(save_figure(draw_beside_authors(beside), folder / 'authors.png'))
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record['seconds'] and record['height'] and record['suite'] != 'authors':
            groups[tuple(record[name] for name in ('suite', 'mode', 'batch'))].append(record)
    for (suite, mode, batch), found in groups.items():
        if len({side_of(record) for record in found}) > 1:
            figure = draw_resolution(found, f'{mode}, batch {batch}')
            name = f'{suite}_{mode.replace("+", "_")}_{batch}_resolution.png'
            written.append(save_figure(figure, folder / name))
        if mode == FORWARD and any(quoted_accuracy(record) for record in found):
            figure = draw_accuracy(found, f'Inference, batch {batch}')
            written.append(save_figure(figure, folder / f'{suite}_{batch}_accuracy.png'))
    return written


def side_of(record: Record) -> float:
    """Side in pixels or positions of a square of the same area."""
    return sqrt(int(record['height']) * int(record['width']))


def draw_resolution(records: Sequence[Record], title: str = '') -> Figure:
    """Two panels over the side of the image or map, a line per candidate: throughput and peak memory."""
    figure = new_figure(10, 4)
    heading(figure, title)
    names = list(dict.fromkeys(record['candidate'] for record in records))
    for axes, (column, text) in zip(figure.subplots(1, 2), PANELS.items()):
        quiet(axes)
        caption(axes, text)
        axes.set(xscale='log', yscale='log')
        axes.yaxis.set_major_formatter('{x:g}')
        axes.set_xlabel('side, pixels or positions', fontsize=8.5, color=MUTED)
        for name, style in zip(names, styles()):
            points = [(side_of(r), float(r[column]) * SCALE[column]) for r in records if r['candidate'] == name]
            axes.plot(*zip(*sorted(points)), **style, linewidth=1.5, markersize=4, label=name)
        sides = sorted({side_of(record) for record in records})
        axes.set_xticks(sides, [f'{side:.0f}' for side in sides])
        axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), loc='outside lower left', ncols=3, fontsize=8.5, frameon=False)
    return figure


def draw_accuracy(records: Sequence[Record], title: str = '') -> Figure:
    """Quoted top-1 accuracy over throughput, a point per model that the catalogue quotes at the measured size."""
    figure = new_figure(9, 4.5)
    heading(figure, title)
    axes: Axes = figure.subplots()
    quiet(axes)
    caption(axes, 'Top-1 accuracy on ImageNet as the papers quote it, %')
    axes.set_xlabel('images per second', fontsize=8.5, color=MUTED)
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('{x:g}')
    axes.tick_params(axis='x', which='minor', labelsize=7.5, labelcolor=MUTED)
    points = [(top1, record) for record in records if (top1 := quoted_accuracy(record))]
    for (top1, record), style in zip(sorted(points, key=lambda point: -point[0]), styles()):
        style['linestyle'] = ''
        axes.plot(float(record['per_second']), top1, **style, markersize=7, label=record['candidate'])
    figure.legend(loc='outside right center', fontsize=8.5, frameon=False)
    return figure


def draw_beside_authors(records: Sequence[Record]) -> Figure:
    """Two panels, a pair of bars for each candidate, inference and training: times as fast, and share of the memory."""
    compared: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        name = record['candidate']
        if name not in AUTHORS:
            name += f', {record["height"]}x{record["width"]}'
        compared[name][record['mode']] = record
    figure = new_figure(11, 1.2 + 0.32 * len(compared))
    heading(figure, "Beside the authors' code")
    speed, memory = figure.subplots(1, 2, sharey=True)
    panels = ((speed, 'Times as fast', lambda r: 1 / float(r['ratio'])), (memory, 'Peak memory, of theirs', peak_ratio))
    for axes, text, value in panels:
        quiet(axes)
        caption(axes, text)
        axes.grid(visible=False, axis='y')
        axes.grid(axis='x', color=FAINT, linewidth=0.8)
        axes.axvline(1, color=MUTED, linewidth=1)
        for mode, color, shift in ((FORWARD, BLUE, -0.19), (TRAINING, ORANGE, 0.19)):
            places = [place + shift for place, found in enumerate(compared.values()) if mode in found]
            axes.barh(places, [value(r[mode]) for r in compared.values() if mode in r], 0.34, color=color, label=mode)
    speed.set_yticks(range(len(compared)), list(compared), color=INK)
    speed.invert_yaxis()
    figure.legend(*speed.get_legend_handles_labels(), loc='outside lower left', ncols=2, fontsize=8.5, frameon=False)
    return figure


def peak_ratio(record: Record) -> float:
    """Peak memory over the baseline's, 0 where it is not known."""
    return float(record['memory_ratio'] or 0)


def styles() -> Iterator[dict[str, Any]]:
    """Arguments of `plot` for one candidate after the other."""
    for (linestyle, marker), color in cycle(product(STYLES, PALETTE)):
        yield {'linestyle': linestyle, 'marker': marker, 'color': color}


def heading(figure: Figure, title: str) -> None:
    """A title over the figure."""
    figure.suptitle(title, x=0.015, ha='left', fontsize=11, color=INK, fontweight='bold')


def quoted_accuracy(record: Record) -> float | None:
    """Top-1 percent that the catalogue quotes for the weights trained on ImageNet-1k at the size of the record."""
    for family in families():
        for entry in catalogue(family).get(record['candidate'], {}).values():
            if entry.paper_top1 and 'in22k' not in entry.tag and str(entry.input_size[1]) == record['height']:
                return entry.paper_top1
    return None
