"""Group normalisation of maps of any size."""

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """(B, C, ...) -> (B, C, ...); a group of a single value, which `nn.GroupNorm` refuses, becomes the bias."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
