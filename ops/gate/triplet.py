"""Triplet attention: the mean of three gates, each of which pools one of the three axes away.

Paper: https://arxiv.org/abs/2010.03045
Code: https://github.com/landskape-ai/triplet-attention (MIT), triplet_attention.py and MODELS/triplet_attention.py
Letters: B batch, C channels, H, W height and width in positions, K kernel size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ops.gate.cbam import SpatialGate


class TripletAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * (cw + hc + hw) / 3, the factors of three spatial gates of CBAM.

    `cw` pools over H and has a factor per channel and column, `hc` over W, `hw` over C. In the code of the ImageNet
    networks they are `ChannelGateH`, `ChannelGateW` and `SpatialGate`, whose `bn.weight` begins at 0.
    Work: 2 * K * K * (C * W + C * H + H * W) multiply-adds, and C for each position.

    Args:
        dim: channels C, on which no parameter depends.
        kernel_size: odd side K of the convolutions.
        no_spatial: leave out `hw` and divide by 2.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        no_spatial: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cw = SpatialGate(kernel_size, device, dtype)
        self.hc = SpatialGate(kernel_size, device, dtype)
        self.hw = None if no_spatial else SpatialGate(kernel_size, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        factors = self.cw.factors(x.transpose(1, 2)).transpose(1, 2)
        factors = factors + self.hc.factors(x.transpose(1, 3)).transpose(1, 3)
        if self.hw is None:
            return x * (factors / 2)
        return x * ((factors + self.hw.factors(x)) / 3)
