"""Pictures of models at work: predictions, attention, training runs and architectures. Needs matplotlib to draw."""

from zoo.visualize.architecture import draw_architecture
from zoo.visualize.attention import (
    AttentionMap,
    attention_maps,
    mean_by_resolution,
    read_attention,
    readable_mixers,
)
from zoo.visualize.canvas import save_figure
from zoo.visualize.curve import draw_curve
from zoo.visualize.overlay import draw_scene
from zoo.visualize.prediction import draw_attention, draw_prediction

__all__ = [
    'AttentionMap',
    'attention_maps',
    'draw_architecture',
    'draw_attention',
    'draw_curve',
    'draw_prediction',
    'draw_scene',
    'mean_by_resolution',
    'read_attention',
    'readable_mixers',
    'save_figure',
]
