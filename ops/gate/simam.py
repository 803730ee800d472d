"""SimAM: a factor per channel and position, from how far a value stands out of its channel; no parameters.

Paper: https://proceedings.mlr.press/v139/yang21o.html
Code: https://github.com/ZjjConan/SimAM (MIT), networks/attentions/simam_module.py
Letters: B batch, C channels, H, W height and width in positions.
"""

from typing import Any

import torch
from torch import Tensor, nn


class SimAM(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(d / (4 * (v + e_lambda)) + 1 / 2).

    d are the squared differences of x to the mean of its channel, v their sum over H * W - 1 (over 1 on a map of one
    position, where the code divides by 0). Work: 4 multiply-adds for each value.

    Args:
        dim: channels C, of no influence.
        e_lambda: keeps the factors of flat channels finite; the authors train on ImageNet with 0.1.
        device: of no influence, as there are no parameters.
        dtype: likewise.
    """

    def __init__(self, dim: int, e_lambda: float = 1e-4, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if e_lambda <= 0:
            raise ValueError(f'e_lambda is {e_lambda}: give a positive number, such as 1e-4')
        self.e_lambda = e_lambda

    def forward(self, x: Tensor) -> Tensor:
        distances = (x - x.mean((2, 3), keepdim=True)).square()
        variance = distances.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        return x * (distances / (4 * (variance + self.e_lambda)) + 0.5).sigmoid()

    def extra_repr(self) -> str:
        return f'e_lambda={self.e_lambda}'
