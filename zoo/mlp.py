"""What a block does to each position behind its mixer: two dense layers with an activation between them.

Letters: B batch, C channels, H W height and width in positions.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ops._conv import conv_act
from ops._eager import has_hooks
from ops._linear import Linear, act_linear, linear_act


def is_idle(drop: nn.Module) -> bool:
    """Whether a dropout lets everything pass, unseen."""
    return type(drop) is nn.Dropout and not (drop.p and drop.training) and not has_hooks(drop)


class Mlp(nn.Module):
    """(..., C) -> (..., C): linear, GELU, linear. The names are those of timm's `Mlp`.

    Args:
        dim: channels C.
        hidden_dim: channels between the layers.
        act_layer: makes the activation.
        drop: dropout ratio after the activation and of the output.
    """

    def __init__(
        self, dim: int, hidden_dim: int, act_layer: Callable[[], nn.Module] = nn.GELU, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            x = self.fc2(self.drop1(self.act(self.fc1(x))))
        elif is_idle(self.drop1) and torch.is_grad_enabled():
            x = act_linear(self.act, self.fc2, self.fc1(x))
        else:
            x = self.fc2(self.drop1(linear_act(self.fc1, self.act, x)))
        return self.drop2(x)


class DepthwiseMlp(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): linear, depthwise convolution of 3 x 3 positions, GELU, linear.

    Args:
        dim: channels C.
        hidden_dim: channels of the convolution.
        drop: dropout ratio after the GELU and of the output.
    """

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.conv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        nn.init.normal_(self.conv.weight, std=(2 / 9) ** 0.5)
        nn.init.zeros_(cast(Tensor, self.conv.bias))
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x).permute(0, 3, 1, 2)
        if is_idle(self.drop1) and torch.is_grad_enabled():
            x = act_linear(self.act, self.fc2, self.conv(x).permute(0, 2, 3, 1))
        else:
            x = self.fc2(self.drop1(conv_act(self.conv, self.act, x).permute(0, 2, 3, 1)))
        return self.drop2(x)
