"""Compiled once, a network serves images of many sizes, whether its patches and windows fit them or not.

The networks keep two stages of one block, as a graph grows with every block and with it the time to trace it. The first
image is not a square: torch takes equal sides for one number. Batch and sizes are such that convolutions inside windows
see less than 16 of them: at 16 torch takes another kernel, and another graph.

Other graphs belong to what the ops choose by size: routed attention masks small maps (`MAX_SCORES`), and neighborhood
attention treats an axis that is one tile of the first image as others but needs a second graph for the rest.
"""

import pytest
import timm
import torch
from torch._dynamo.testing import CompileCounter

SIZES = ((64, 96), (75, 109), (112, 168))  # the last alone fits windows of 7 x 7 positions, and the tables of `SIZED`
SIZED = dict(depths=(1, 1), embed_dims=(64, 128), img_size=(112, 168))
SHALLOW = {
    'agent_cswin_tiny_224': dict(depths=(1, 1), reductions=(4, 8), attn_type='AB', split_sizes=(1, 7)),
    'agent_deit_tiny_patch16_224': dict(depth=1, img_size=(112, 168)),
    'agent_pvt_tiny_224': SIZED,
    'agent_swin_tiny_224': dict(depths=(1, 2), attn_type='AB'),
    'biformer_stl': dict(depths=(1, 1), reductions=(4, 8), topks=(1, None)),
    'biformer_stl_nchw': dict(depths=(1, 1), reductions=(4, 8), topks=(1, None)),
    'biformer_tiny': dict(depths=(1, 1), reductions=(4, 8), topks=(1, None)),
    'cswin_tiny_224': dict(depths=(1, 1), reductions=(4, 8), split_sizes=(7, None)),
    'eca_mobilenetv2': {},
    'eca_resnet18': dict(depths=(1, 1), output_stride=8),
    'litv2_s': dict(depths=(1, 1), local_ws=(0, 2), alpha=0.5),
    'maxvit_stl': dict(depths=(1, 2)),
    'mixer_tiny': dict(depths=(1, 1), mixer='sra'),
    'nat_mini': dict(depths=(1, 1), num_heads=(2, 4)),
    'pvt_tiny': dict(SIZED, sr_ratios=(8, 1)),
    'zoo_focalnet_tiny_iso': dict(depth=1),
    'zoo_focalnet_tiny_srf': dict(depths=(1, 1), reductions=(4, 8)),
    'zoo_maxvit_tiny_tf_224': dict(depths=(1, 1)),
}


@pytest.mark.parametrize('name', SHALLOW)
def test_one_graph_serves_a_range_of_sizes(name):
    model, counter = timm.create_model(name, **SHALLOW[name]).eval(), CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in SIZES:
            compiled(torch.randn(2, 3, *size))
    assert counter.frame_count == 1
