"""Compiled once, a network serves images of many sizes: families whose networks are traced in seconds.

The networks keep one block per stage, or two blocks: a graph grows with every block, and with it the time to trace it.
"""

import pytest
import timm
import torch
from torch._dynamo.testing import CompileCounter

SIZES = ((64, 96), (96, 160), (128, 96))
SHALLOW = {
    'agent_deit_tiny_patch16_224': dict(depth=2),
    'agent_pvt_tiny_224': dict(depths=(1, 1, 1, 1)),
    'eca_resnet18': dict(depths=(1, 1, 1, 1)),
    'pvt_tiny': dict(depths=(1, 1, 1, 1)),
    'zoo_focalnet_tiny_iso': dict(depth=2),
    'zoo_focalnet_tiny_srf': dict(depths=(1, 1, 1, 1)),
}


@pytest.mark.parametrize('name', SHALLOW)
def test_one_graph_serves_a_range_of_sizes(name):
    model, counter = timm.create_model(name, **SHALLOW[name]).eval(), CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in SIZES:
            compiled(torch.randn(2, 3, *size))
    assert counter.frame_count == 1
