"""The order of memory in which the stages of the skeleton hand maps on."""

import torch
from torch import nn

from zoo.skeleton import Stage


class Recorder(nn.Module):
    """Passes a map on and keeps its strides."""

    def forward(self, x):
        self.strides = x.stride()
        return x


def test_blocks_in_nhwc_take_maps_that_are_so_in_memory():
    block = Recorder()
    out = Stage([block], nn.Conv2d(3, 8, 3, 2, 1))(torch.randn(2, 3, 8, 12))
    assert block.strides == torch.empty(2, 4, 6, 8).stride()
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_blocks_in_nchw_take_maps_as_they_come():
    for memory_format in (torch.contiguous_format, torch.channels_last):
        block, x = Recorder(), torch.randn(2, 3, 8, 12).contiguous(memory_format=memory_format)
        Stage([block], channels_last=False)(x)
        assert block.strides == x.stride()
