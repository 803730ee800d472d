"""What all drawings share: colours, type, an empty figure, and how a figure becomes a file.

Figures are built without pyplot, so that neither a global backend nor a window is touched; matplotlib is imported when
something is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = '#1f2a37'
MUTED = '#7b8794'
FAINT = '#dfe4ea'
BLUE = '#2f6690'
ORANGE = '#e8590c'
DPI = 120


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor='white')


def caption(axes: Axes, text: str) -> None:
    """A heading over the left edge of a panel."""
    axes.set_title(text, loc='left', fontsize=10, color=INK, fontweight='bold', pad=6)


def bare(axes: Axes) -> None:
    """Takes ticks and frame from a panel."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def quiet(axes: Axes) -> None:
    """Leaves a panel of numbers its left and bottom axis, in grey."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color(FAINT)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.set_axisbelow(True)
    axes.grid(axis='y', color=FAINT, linewidth=0.8)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG, whole or not at all, and returns its path; missing folders are made.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', metadata={'Software': None})
    return path
