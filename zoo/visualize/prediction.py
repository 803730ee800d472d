"""Drawings of one prediction: the picture, the probabilities of the classes and what a pixel looks at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from zoo.inference import Prediction
from zoo.visualize.attention import AttentionMap
from zoo.visualize.canvas import BLUE, FAINT, INK, MUTED, ORANGE, bare, caption, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_prediction(prediction: Prediction, maps: Sequence[AttentionMap] = (), topk: int = 5) -> Figure:
    """The picture, the `topk` classes as bars and, below them, one panel per attention map (`mean_by_resolution`)."""
    figure = new_figure(10, 5)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1), squeeze=False)[0]
    photo = left.subplots()
    show_picture(photo, prediction.view)
    caption(photo, prediction.title)
    if not maps:
        draw_bars(right.subplots(), prediction.top(topk))
        return figure
    mark_query(photo, maps[0], prediction.view.shape)
    above, below = right.subfigures(2, 1, height_ratios=(1.25, 1), squeeze=False)[:, 0]
    draw_bars(above.subplots(), prediction.top(topk))
    panels = below.subplots(1, len(maps), squeeze=False)[0]
    for axes, entry in zip(panels, maps):
        draw_overlay(axes, prediction.view, entry)
        axes.set_xlabel(size_of(entry), fontsize=8.5, color=MUTED)
    caption(panels[0], 'What the framed position attends to')
    return figure


def draw_attention(view: np.ndarray, maps: Sequence[AttentionMap], columns: int = 4) -> Figure:
    """A grid of panels, one per map and named after it: the mean over its heads, laid over the picture.

    Args:
        view: (H, W, 3) uint8, the part of the picture that the model was given.
        maps: at least one, in the order of the panels.
        columns: panels in a row.

    Raises:
        ValueError: no maps.
    """
    if not maps:
        raise ValueError('there is no attention map to draw')
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(2.5 * columns, 2.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, entry in zip(panels, maps):
        draw_overlay(axes, view, entry)
        axes.set_xlabel(f'{entry.name}, {size_of(entry)}', fontsize=8.5, color=MUTED)
    for axes in panels[len(maps) :]:
        axes.remove()
    return figure


def draw_bars(axes: Axes, ranked: Sequence[tuple[str, float]]) -> None:
    """A list of (label, probability), each over a bar; the first is the strongest in colour."""
    for i, (label, value) in enumerate(ranked):
        axes.barh(i, 1, height=0.2, color=FAINT)
        axes.barh(i, value, height=0.2, color=ORANGE if i == 0 else BLUE)
        for x, text, side in ((0, textwrap.shorten(label, 44, placeholder=' …'), 'left'), (1, percent(value), 'right')):
            weight = 'bold' if i == 0 else 'normal'
            axes.text(x, i - 0.2, text, ha=side, va='bottom', fontsize=9.5, color=INK, fontweight=weight)
    axes.set(xlim=(0, 1), ylim=(max(len(ranked), 5) - 0.6, -0.9))
    bare(axes)
    caption(axes, 'What the model sees')


def draw_overlay(axes: Axes, view: np.ndarray, entry: AttentionMap) -> None:
    """The picture in grey, each position coloured by the mean weight it gets, and the query framed."""
    weights = entry.weights.mean(0).detach().float().cpu().numpy()
    show_picture(axes, faded(view))
    height, width = view.shape[:2]
    axes.imshow(
        heat(weights / max(weights.max(), 1e-12)),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation='nearest',
    )
    mark_query(axes, entry, view.shape)


def size_of(entry: AttentionMap) -> str:
    """``'14 × 14'``, the positions of a map."""
    return ' × '.join(map(str, entry.weights.shape[1:]))


def percent(ratio: float) -> str:
    """``0.1234`` -> ``'12.3 %'``."""
    return f'{100 * ratio:.1f} %'


def show_picture(axes: Axes, view: np.ndarray) -> None:
    """(H, W, 3) uint8 or (H, W) values of 0 to 255, without ticks."""
    axes.imshow(view, cmap='gray', vmin=0, vmax=255)
    bare(axes)


def faded(view: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) uint8: grey and pale, so that a colour laid over it stands out."""
    grey = view @ np.array([0.299, 0.587, 0.114])
    return (110 + 0.57 * grey).astype(np.uint8)


def heat(strength: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> (H, W, 4): one colour, the more opaque the stronger; the root lifts what is faint."""
    from matplotlib.colors import to_rgb

    color = np.broadcast_to(to_rgb(ORANGE), (*strength.shape, 3))
    return np.dstack([color, 0.8 * np.sqrt(strength)])


def mark_query(axes: Axes, entry: AttentionMap, shape: tuple[int, ...]) -> None:
    """Frames the query's position on a picture of (H, W, ...) pixels."""
    from matplotlib.patches import Rectangle

    cell = np.array(shape[:2]) / entry.weights.shape[1:]
    top, left = np.array(entry.query) * cell - 0.5
    for color, width in (('white', 3.2), (INK, 1.6)):
        frame = Rectangle((left, top), cell[1], cell[0], fill=False, edgecolor=color, linewidth=width, clip_on=False)
        axes.add_patch(frame)
