"""Neighborhood attention (NA), its dilated (DiNA), strided (GNA) and causal forms, in 1, 2 and 3 dimensions."""

from ops.window.neighborhood.functional import BACKENDS, na1d, na2d, na3d
from ops.window.neighborhood.module import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D

__all__ = [
    'BACKENDS',
    'NeighborhoodAttention1D',
    'NeighborhoodAttention2D',
    'NeighborhoodAttention3D',
    'na1d',
    'na2d',
    'na3d',
]
