"""Drawing of a backbone: its stages from the image to the classifier, each block a bar as tall as its map is fine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby
from typing import TYPE_CHECKING, Any

from torch import nn

from zoo.visualize.canvas import BLUE, FAINT, INK, MUTED, ORANGE, bare, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR, GAP, STAGE_GAP = 0.62, 0.2, 3.0
"""Width of a block, between blocks and between stages, in one unit."""
KIND_COLORS = (BLUE, ORANGE, '#3f8f6b', '#8a5a9e', MUTED)
"""Of the kinds of mixers, in the order they appear."""


@dataclass(frozen=True)
class StageSketch:
    """What is drawn of one stage.

    Args:
        size: rows and columns of its map at its end.
        channels: of the map.
        mixers: what mixes the positions in each of its blocks, the block itself where it has no `mixer`.
    """

    size: tuple[int, int]
    channels: int
    mixers: tuple[nn.Module, ...]


def draw_architecture(model: Any, input_size: tuple[int, int], title: str = '') -> Figure:
    """The image, the stages with what their blocks are, and the classifier, from left to right.

    Args:
        model: classifier with `feature_info`, of this project or of timm.
        input_size: (H, W) of the image in pixels.
        title: over the figure; the class of the model when empty.
    """
    stages = sketch(model, input_size)
    figure = new_figure(11, 3.9)
    figure.suptitle(title or type(model).__name__, x=0.012, ha='left', fontsize=12, color=INK, fontweight='bold')
    colors = assign_colors([mixer for stage in stages for mixer in stage.mixers])
    draw_legend(figure, colors)
    axes = figure.subplots()
    bare(axes)
    x = draw_slab(axes, 0.0, 2.2, height_of(input_size), FAINT)
    write_below(axes, 1.1, 'image', [f'{input_size[0]} × {input_size[1]}', f'{model.in_chans} channels'])
    for index, stage in enumerate(stages):
        x = draw_arrow(axes, x)
        width = max(len(stage.mixers) * (BAR + GAP) - GAP, 3.4)
        draw_stage(axes, x, width, stage, colors)
        write_below(axes, x + width / 2, f'stage {index + 1}', describe(stage))
        x += width
    x = draw_arrow(axes, x)
    draw_slab(axes, x, 1.6, 1.2, FAINT)
    write_below(axes, x + 0.8, 'head', [f'{model.num_features} →', f'{model.num_classes} classes'])
    axes.set(xlim=(-0.5, x + 2.6), ylim=(-6.6, 8.8))
    return figure


def sketch(model: Any, input_size: tuple[int, int]) -> list[StageSketch]:
    """The stages of a model by its `feature_info`; those of one size and width that follow each other are one."""
    stages = []
    for (channels, reduction), infos in groupby(model.feature_info, lambda i: (i['num_chs'], i['reduction'])):
        size = (-(-input_size[0] // reduction), -(-input_size[1] // reduction))
        mixers = [mixer for info in infos for mixer in mixers_of(model.get_submodule(info['module']))]
        stages.append(StageSketch(size, channels, tuple(mixers)))
    return stages


def mixers_of(stage: nn.Module) -> list[nn.Module]:
    """Of each block of a stage its mixer, or itself; of a module without blocks, its children or itself."""
    blocks = list(getattr(stage, 'blocks', stage).children()) or [stage]
    return [getattr(block, 'mixer', block) for block in blocks]


def describe(stage: StageSketch) -> list[str]:
    """Lines of text on a stage: its map, its blocks and, where its mixers have them, window, dilations and heads."""
    first = stage.mixers[0]
    count = len(stage.mixers)
    lines = [f'{stage.size[0]} × {stage.size[1]} × {stage.channels}', f'{count} block{"s" if count > 1 else ""}']
    if kernel := per_axis(first, 'kernel_size'):
        lines.append(f'window {kernel[0]} × {kernel[-1]}')
    steps = [step_of(mixer) for mixer in stage.mixers]
    if max(steps) > 1:
        lines.append(f'dilation {abbreviate(steps)}')
    if heads := getattr(first, 'num_heads', None):
        lines.append(f'{heads} heads')
    return lines


def per_axis(mixer: nn.Module, name: str) -> tuple[int, ...]:
    """An attribute with one number for all axes or one per axis; empty where the mixer has none."""
    value = getattr(mixer, name, ())
    return (value,) if isinstance(value, int) else tuple(value)


def step_of(mixer: nn.Module) -> int:
    """The largest dilation of a mixer, 1 where it has none."""
    return max(per_axis(mixer, 'dilation') or (1,))


def abbreviate(steps: Sequence[int], limit: int = 5) -> str:
    """``[1, 8, 1]`` -> ``'1, 8, 1'``; a long list is cut after three."""
    shown = ', '.join(map(str, steps[: limit if len(steps) <= limit else 3]))
    return shown if len(steps) <= limit else f'{shown}, …'


def height_of(size: tuple[int, int]) -> float:
    """Height of what has `size` rows and columns: finer is taller, on a logarithmic scale."""
    return 1.0 + math.log2(math.sqrt(size[0] * size[1]))


def draw_stage(axes: Axes, x: float, width: float, stage: StageSketch, colors: Mapping[str, str]) -> None:
    """One bar per block from `x` on, centred in `width`, in the colour of its kind of mixer."""
    x += (width - len(stage.mixers) * (BAR + GAP) + GAP) / 2
    for mixer in stage.mixers:
        draw_slab(axes, x, BAR, height_of(stage.size), colors[kind_of(mixer)])
        x += BAR + GAP


def draw_slab(axes: Axes, x: float, width: float, height: float, color: str) -> float:
    """A rounded box on the middle line; returns its right edge."""
    from matplotlib.patches import FancyBboxPatch

    style = 'round,pad=0,rounding_size=0.12'
    axes.add_patch(FancyBboxPatch((x, 4.2 - height / 2), width, height, boxstyle=style, facecolor=color, linewidth=0))
    return x + width


def draw_arrow(axes: Axes, x: float) -> float:
    """An arrow to the right from `x`; returns where the next box begins."""
    style = dict(arrowstyle='-|>', color=MUTED, linewidth=1.2, shrinkA=0, shrinkB=0)
    axes.annotate('', xy=(x + STAGE_GAP - 0.4, 4.2), xytext=(x + 0.4, 4.2), arrowprops=style)
    return x + STAGE_GAP


def write_below(axes: Axes, x: float, heading: str, lines: Sequence[str]) -> None:
    """A heading and grey lines, centred at `x` under the boxes."""
    axes.text(x, -1.2, heading, ha='center', va='top', fontsize=10, color=INK, fontweight='bold')
    axes.text(x, -2.3, '\n'.join(lines), ha='center', va='top', fontsize=8.5, color=MUTED, linespacing=1.5)


def kind_of(mixer: nn.Module) -> str:
    """Class of a mixer, and whether it is dilated."""
    return type(mixer).__name__ + (', dilated' if step_of(mixer) > 1 else '')


def assign_colors(mixers: Sequence[nn.Module]) -> dict[str, str]:
    """Kind of mixer -> its colour, in the order they appear; many kinds share colours."""
    kinds = dict.fromkeys(map(kind_of, mixers))
    return dict(zip(kinds, cycle(KIND_COLORS)))


def draw_legend(figure: Figure, colors: Mapping[str, str]) -> None:
    """What the colours of the bars mean, at the top right."""
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=kind) for kind, color in colors.items()]
    legend = figure.legend(handles=handles, loc='upper right', fontsize=9, labelcolor=INK, ncols=len(handles))
    legend.set(frame_on=False)
