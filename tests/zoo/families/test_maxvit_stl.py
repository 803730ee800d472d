"""What is MaxViT-STL's own: windows and grids in turns, and padding that is attended to."""

import timm
import torch
from torch.nn import functional as F

from ops import BlockAttention, GridAttention


def test_windows_and_grids_take_turns():
    model = timm.create_model('maxvit_stl', device='meta')
    kinds = [type(block.mixer) for block in model.stages[2].blocks]
    assert kinds == [BlockAttention, GridAttention] * 3


def test_maps_are_padded_as_by_the_authors():
    model = timm.create_model('maxvit_stl', depths=(1, 1), embed_dim=32, num_classes=3).eval()
    mixer = model.stages[0].blocks[0].mixer
    x = torch.randn(1, 10, 7, 32)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), mixer(F.pad(x, (0, 0, 0, 0, 0, 4)))[:, :10])
