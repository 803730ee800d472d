"""Token mixers of the vision papers, in plain torch. Each public name is imported from its file on first use."""

from importlib import import_module
from typing import Any

NEIGHBORHOOD = 'ops.window.neighborhood'
PLACES = {
    'BAM': 'ops.gate.bam',
    'CBAM': 'ops.gate.cbam',
    'CoordinateAttention': 'ops.gate.coordinate',
    'EfficientChannelAttention': 'ops.gate.eca',
    'agent_attention': 'ops.linear.agent',
    'AgentAttention': 'ops.linear.agent',
    'AgentCore': 'ops.linear.agent',
    'FocalModulation': 'ops.conv.focal_modulation',
    'GlobalAttention': 'ops.window.global_attention',
    'SqueezeExcitation': 'ops.gate.se',
    'TripletAttention': 'ops.gate.triplet',
    'na1d': NEIGHBORHOOD,
    'na2d': NEIGHBORHOOD,
    'na3d': NEIGHBORHOOD,
    'NeighborhoodAttention1D': NEIGHBORHOOD,
    'NeighborhoodAttention2D': NEIGHBORHOOD,
    'NeighborhoodAttention3D': NEIGHBORHOOD,
    'BranchedAttention': 'ops.window.cross_shaped',
    'CrossShapedWindowAttention': 'ops.window.cross_shaped',
    'StripeAttention': 'ops.window.cross_shaped',
    'ShiftedWindowAttention': 'ops.window.shifted_window',
    'ReducedAgentAttention': 'ops.linear.agent',
    'DeformableTokenMerging': 'ops.conv.deformable_merging',
    'HiLoAttention': 'ops.linear.hilo',
    'RelativePositionAttention': 'ops.window.relative_attention',
    'SpatialReductionAttention': 'ops.linear.spatial_reduction',
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f'ops has no {name!r}; it has {sorted(PLACES)}')
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PLACES])
