"""Drawings of what detectors and segmentors find: boxes, masks and segments laid over the picture, with a legend."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from zoo.visualize.canvas import INK, MUTED, bare, caption, new_figure
from zoo.visualize.prediction import percent, show_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from zoo.openmmlab.inference import Found, Scene

PALETTE = ('#e69f00', '#56b4e9', '#009e73', '#d55e00', '#0072b2', '#cc79a7', '#f0e442')
"""Okabe and Ito's colours, which the colour-blind tell apart too."""
SHADES = 1.0, 0.6
"""Brightness of the colours the first and the second time that the palette is gone through."""
FILLED = 0.5
LINES = 20
"""Rows of the legend."""


def draw_scene(scene: Scene) -> Figure:
    """The picture with its objects or segments, each class in a colour, and what the colours mean.

    The legend has the most frequent classes first, with their number or their share of the picture.
    """
    counts = Counter(found.label for found in scene.objects)
    meanings = {label: f'{count} ×' for label, count in counts.most_common()}
    meanings |= {label: percent(float(where.mean())) for label, where in scene.segments.items()}
    colours = dict(zip(meanings, itertools.cycle(shaded())))
    height, width = scene.view.shape[:2]
    figure = new_figure(10, float(np.clip(7.4 * height / width, 3, 10)) + 0.4)
    photo, legend = figure.subplots(1, 2, width_ratios=(3.4, 1))
    show_picture(photo, scene.view)
    caption(photo, scene.title)
    layer = np.zeros((height, width, 4))
    for label, where in scene.segments.items():
        paint(layer, where, colours[label])
    for found in reversed(scene.objects):  # the surest on top
        if found.mask is not None:
            paint(layer, found.mask, colours[found.label])
    photo.imshow(layer)
    for found in reversed(scene.objects):
        frame(photo, found, colours[found.label])
    for row, (label, meaning) in enumerate(list(meanings.items())[:LINES]):
        legend.scatter(0.04, row, s=80, marker='s', color=[colours[label]])
        legend.text(0.12, row, label, va='center', fontsize=9, color=INK)
        legend.text(1, row, meaning, va='center', ha='right', fontsize=9, color=MUTED)
    legend.set(xlim=(0, 1), ylim=(max(len(meanings), 12), -0.7))
    bare(legend)
    caption(legend, 'What the model sees' if meanings else 'Nothing found')
    return figure


def shaded() -> list[tuple[float, ...]]:
    """Every colour in every shade, as numbers from 0 to 1."""
    from matplotlib.colors import to_rgb

    return [tuple(shade * part for part in to_rgb(colour)) for shade in SHADES for colour in PALETTE]


def paint(layer: np.ndarray, where: np.ndarray, colour: tuple[float, ...]) -> None:
    """Fills a region (H, W) of a layer (H, W, 4), half transparent within an opaque border."""
    padded = np.pad(where, 1)
    within = where & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    layer[where] = (*colour, 1.0)
    layer[within, 3] = FILLED


def frame(axes: Axes, found: Found, colour: tuple[float, ...]) -> None:
    """The box of one object with its class and score."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = found.box
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.6))
    ink = 'white' if sum(colour) < 1.5 else INK
    text = axes.text(left, top, f'{found.label} {100 * found.score:.0f}', va='bottom', fontsize=7.5, color=ink)
    text.set(bbox={'facecolor': colour, 'edgecolor': 'none', 'pad': 1.2}, clip_on=True)
