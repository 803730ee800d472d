"""Drawing of a training run: loss and score over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.visualize.canvas import BLUE, INK, MUTED, ORANGE, caption, new_figure, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SCORES = {
    'top1': 'Test accuracy, %',
    'mIoU': 'Mean intersection over union, %',
    'coco/segm_mAP': 'Average precision of masks, %',
    'coco/bbox_mAP': 'Average precision of boxes, %',
}
"""Keys of the log that are drawn, the first that is there, with the heading of their panel."""


def draw_curve(log: Sequence[Mapping[str, Any]], title: str = '') -> Figure:
    """Two panels over the epochs: the training loss, and the score in percent of the epochs that have one.

    Args:
        log: one entry per epoch, as `log.jsonl` has them: `epoch`, `loss` and, where it was validated, one of `SCORES`.
        title: over the figure.

    Raises:
        ValueError: no epochs.
    """
    if not log:
        raise ValueError('the log has no epochs: there is no curve to draw')
    figure = new_figure(8, 3.2)
    if title:
        figure.suptitle(title, x=0.015, ha='left', fontsize=11, color=INK, fontweight='bold')
    loss, right = figure.subplots(1, 2)
    draw_line(loss, [(entry['epoch'], entry['loss']) for entry in log], BLUE, '{:.3f}')
    caption(loss, 'Training loss')
    score = next((name for name in SCORES if any(name in entry for entry in log)), 'top1')
    draw_line(right, [(entry['epoch'], entry[score]) for entry in log if score in entry], ORANGE, '{:.1f} %')
    caption(right, SCORES[score])
    return figure


def draw_line(axes: Axes, points: Sequence[tuple[float, float]], color: str, last: str) -> None:
    """(epoch, value) points as a line whose last value is written beside it in the format `last`."""
    from matplotlib.ticker import MaxNLocator

    quiet(axes)
    axes.set_xlabel('epoch', fontsize=8.5, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02, y=0.1)
    if not points:
        return
    x, y = zip(*points)
    axes.plot(x, y, color=color, linewidth=2, marker='o' if len(points) < 20 else None, markersize=4)
    beside = axes.annotate(last.format(y[-1]), (x[-1], y[-1]), xytext=(6, 0), textcoords='offset points', va='center')
    beside.set(fontsize=9.5, color=color, fontweight='bold', annotation_clip=False)
