"""What a block does to each position behind its mixer: two dense layers with an activation between them.

Letters: B batch, C channels, H W height and width in positions.
"""

from typing import cast

import torch
from timm.layers import GELUTanh
from torch import Tensor, nn

from ops._linear import Linear, is_faster, needs_grad, product


def has_hooks(module: nn.Module) -> bool:
    """Whether something waits for what goes into or comes out of the module."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or torch.nn.modules.module._has_any_global_hook()


class Mlp(nn.Module):
    """(..., C) -> (..., C): linear, GELU, linear. The names are those of timm's `Mlp`.

    Args:
        dim: channels C.
        hidden_dim: channels between the layers.
        act_layer: makes the activation.
        drop: dropout ratio after the activation and of the output.
    """

    def __init__(self, dim: int, hidden_dim: int, act_layer: type[nn.Module] = nn.GELU, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            x = self.act(self.fc1(x))
        else:
            x = self.hidden(x)
        return self.drop2(self.fc2(self.drop1(x)))

    def hidden(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., hidden_dim), the activation of `fc1`; in inference in one pass over its result."""
        fc1, act = self.fc1, self.act
        known = type(fc1) is Linear and type(act) in (nn.GELU, GELUTanh) and not has_hooks(fc1) and not has_hooks(act)
        if not known or not is_faster(x, fc1.weight, fc1.bias) or needs_grad(x, fc1.weight, fc1.bias):
            return act(fc1(x))
        return product(x, fc1.weight, fc1.bias, 'gelu', getattr(act, 'approximate', 'tanh'))


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
        x = self.conv(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop2(self.fc2(self.drop1(self.act(x))))
