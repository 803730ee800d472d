"""DAS: a factor per channel and position from a deformable convolution, which looks where the map tells it to.

Paper: https://arxiv.org/abs/2311.12091; its code has not been released, and what others published disagrees
Letters: B batch, C channels, R channels of the bottleneck, H, W height and width in positions, K kernel size.

The paper's steps are kept: a depth-wise separable convolution to R channels, instance norm and GELU; a modulated
deformable convolution back to C channels; layer norm over the channels, and a sigmoid. Ours are: the deformable
convolution is depth-wise separable too, the convolutions before a norm have no biases, and the offsets begin at 0.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops.gate._checks import half
from ops.gate._norm import GroupNorm


def sample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) at positions (B, ...) -> (B, C, ...), bilinear, 0 outside; rows and columns count from 0."""
    height, width = x.shape[2:]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
    shape = rows.shape[1:]
    # A half precision counts no further than a few hundred positions.
    precise = torch.promote_types(x.dtype, torch.float32)
    points = grid.flatten(1, -2)[:, :, None].to(precise)
    out = F.grid_sample(x.to(precise), points, padding_mode='zeros', align_corners=False)
    return out.squeeze(-1).unflatten(2, shape).to(x.dtype)


class DeformableDepthwise(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): per channel the sum of K * K weighted samples around each position.

    `offset` derives from the map, for each position, by how much each of the K * K points of the kernel is moved (rows,
    then columns, in positions) and a factor from 0 to 1 for each, shared by all channels; outside the map is 0.

    Args:
        dim: channels C.
        kernel_size: odd side K.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(self, dim: int, kernel_size: int = 3, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        points = kernel_size * kernel_size
        self.kernel_size, self.pad = kernel_size, half(kernel_size)
        self.offset = nn.Conv2d(dim, 3 * points, kernel_size, padding=self.pad, **dd)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)
        self.weight = nn.Parameter(torch.empty(dim, points, **dd))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        down, right, factors = self.offset(x).chunk(3, 1)
        steps = torch.arange(self.kernel_size, device=x.device) - self.pad
        rows = (
            torch.arange(x.shape[2], device=x.device)[:, None]
            + steps.repeat_interleave(self.kernel_size)[:, None, None]
        )
        columns = torch.arange(x.shape[3], device=x.device) + steps.repeat(self.kernel_size)[:, None, None]
        # The positions are added in the precision that they are sampled in.
        precise = torch.promote_types(x.dtype, torch.float32)
        samples = sample(x, rows + down.to(precise), columns + right.to(precise))
        return torch.einsum('bcphw,bphw,cp->bchw', samples, factors.sigmoid(), self.weight)


class DAS(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(layer norm over C of pointwise(deformable(hidden))).

    hidden = gelu(instance norm(reduce(depthwise(x)))) has R channels.
    Work: C * (K * K + 2 * R) + K * K * R * (3 * K * K + 5) multiply-adds for each position.

    Args:
        dim: channels C.
        ratio: R over C, rounded down; the paper's 0.2.
        kernel_size: odd side K of every convolution that has one.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        ratio: float = 0.2,
        kernel_size: int = 3,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        if hidden < 1:
            raise ValueError(f'ratio {ratio} leaves none of {dim} channels: give at least 1 / dim')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.depthwise = nn.Conv2d(dim, dim, kernel_size, padding=half(kernel_size), groups=dim, bias=False, **dd)
        self.reduce = nn.Conv2d(dim, hidden, 1, bias=False, **dd)
        self.norm1 = GroupNorm(hidden, hidden, **dd)
        self.deformable = DeformableDepthwise(hidden, kernel_size, **dd)
        self.expand = nn.Conv2d(hidden, dim, 1, bias=False, **dd)
        self.norm2 = nn.LayerNorm(dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.norm1(self.reduce(self.depthwise(x))))
        scores = self.norm2(self.expand(self.deformable(hidden)).permute(0, 2, 3, 1))
        return x * scores.permute(0, 3, 1, 2).sigmoid()
