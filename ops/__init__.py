"""Token mixers of the vision papers, in plain torch. Each public name is imported from its file on first use."""

from importlib import import_module
from typing import Any

BILEVEL = 'ops.routed.bilevel_routing'
NEIGHBORHOOD = 'ops.window.neighborhood'
PLACES = {
    'AgentAttention': 'ops.linear.agent',
    'AgentCore': 'ops.linear.agent',
    'AgentStripes': 'ops.linear.agent_windows',
    'BAM': 'ops.gate.bam',
    'BiLevelRoutingAttention': BILEVEL,
    'BiLevelRoutingAttention2d': BILEVEL,
    'BlockAttention': 'ops.window.block_grid',
    'BranchedAttention': 'ops.window.cross_shaped',
    'CBAM': 'ops.gate.cbam',
    'CoordinateAttention': 'ops.gate.coordinate',
    'CrossShapedAgentAttention': 'ops.linear.agent_windows',
    'CrossShapedWindowAttention': 'ops.window.cross_shaped',
    'DAS': 'ops.gate.das',
    'DenseLePEAttention': BILEVEL,
    'DenseLePEAttention2d': BILEVEL,
    'DeformableTokenMerging': 'ops.conv.deformable_merging',
    'EfficientChannelAttention': 'ops.gate.eca',
    'EfficientLocalAttention': 'ops.gate.ela',
    'FocalModulation': 'ops.conv.focal_modulation',
    'GaussianAdaptiveAttention': 'ops.gate.gaam',
    'GaussianBlock': 'ops.gate.gaam',
    'GlobalAttention': 'ops.window.global_attention',
    'GridAttention': 'ops.window.block_grid',
    'HiLoAttention': 'ops.linear.hilo',
    'MBConv': 'ops.conv.mbconv',
    'NeighborhoodAttention1D': NEIGHBORHOOD,
    'NeighborhoodAttention2D': NEIGHBORHOOD,
    'NeighborhoodAttention3D': NEIGHBORHOOD,
    'PKCAM': 'ops.gate.pkcam',
    'PolarizedParallel': 'ops.gate.polarized',
    'PolarizedSequential': 'ops.gate.polarized',
    'ReducedAgentAttention': 'ops.linear.agent',
    'RelativePositionAttention': 'ops.window.relative_attention',
    'SeparateLocalAttention': 'ops.gate.ela',
    'ShiftedWindowAttention': 'ops.window.shifted_window',
    'SimAM': 'ops.gate.simam',
    'SpatialReductionAttention': 'ops.linear.spatial_reduction',
    'SqueezeExcitation': 'ops.gate.se',
    'StripeAttention': 'ops.window.cross_shaped',
    'TripletAttention': 'ops.gate.triplet',
    'ULSAM': 'ops.gate.ulsam',
    'WindowAgentAttention': 'ops.linear.agent_windows',
    'agent_attention': 'ops.linear.agent',
    'na1d': NEIGHBORHOOD,
    'na2d': NEIGHBORHOOD,
    'na3d': NEIGHBORHOOD,
    'routed_attention': BILEVEL,
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f'ops has no {name!r}; it has {sorted(PLACES)}')
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PLACES])
