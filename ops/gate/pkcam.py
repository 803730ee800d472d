"""EMCA / PKCAM: efficient channel attention that also looks at the pooled outputs of earlier stages.

Paper: https://arxiv.org/abs/2211.07521
Code: https://github.com/eslambakr/EMCA (no licence), Code/eca_resnet_multi_scale.py at its committed settings
Letters: B batch, C channels, H, W height and width in positions, S pooled vectors with the map's own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ops._layout import spatial_mean
from ops.gate._checks import half
from ops.gate.eca import adaptive_kernel_size


def fuse(conv: nn.Conv1d, vectors: Sequence[Tensor]) -> Tensor:
    """S vectors (B, C) -> (B, 1, C): one learned sum of the S values of each channel."""
    return conv(torch.stack(list(vectors), -1).flatten(1)[:, None])


class PKCAM(nn.Module):
    """(B, C, H, W), and pooled vectors of earlier stages -> (B, C, H, W): x * (1 + factor of its channel).

    The local factors are those of efficient channel attention, sigmoid(conv_local(mean of x over H and W)). The global
    ones are sigmoid(conv_global(relu(stage_fusion(earlier vectors and the mean)))), and sigmoid(out_fusion(local and
    global)) are the factors. Without earlier vectors the local ones are: so in the first block of a stage.
    Work: C * (2 * K + S + 2) multiply-adds, and C for each position.

    Args:
        dim: channels C.
        num_previous: earlier vectors S - 1; when 0, the layers of the global factors are not made.
        kernel_size: odd number K of channels that one factor depends on; that of the paper on efficient channel
            attention when None.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_previous: int = 0,
        kernel_size: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim < 1 or num_previous < 0:
            raise ValueError(f'{dim=} must be at least 1, {num_previous=} at least 0')
        dd: dict[str, Any] = {'bias': False, 'device': device, 'dtype': dtype}
        size = adaptive_kernel_size(dim) if kernel_size is None else kernel_size
        self.num_previous = num_previous
        self.conv_local = nn.Conv1d(1, 1, size, padding=half(size), **dd)
        if num_previous:
            self.conv_global = nn.Conv1d(1, 1, size, padding=half(size), **dd)
            self.stage_fusion = nn.Conv1d(1, 1, num_previous + 1, stride=num_previous + 1, **dd)
            self.out_fusion = nn.Conv1d(1, 1, 2, stride=2, **dd)

    def forward(self, x: Tensor, previous: Sequence[Tensor] = ()) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W).

        Args:
            x: the map.
            previous: none, or `num_previous` vectors (B, C'), means of maps over H and W; C' divides C and the vector
                is repeated to C.
        """
        pooled = spatial_mean(x)
        factors = self.conv_local(pooled[:, None]).sigmoid()
        if previous:
            if len(previous) != self.num_previous:
                raise ValueError(f'{len(previous)} previous vectors are given, num_previous is {self.num_previous}')
            repeated = [vector.repeat(1, x.shape[1] // vector.shape[1]) for vector in previous]
            shared = self.conv_global(fuse(self.stage_fusion, [*repeated, pooled]).relu()).sigmoid()
            factors = fuse(self.out_fusion, [factors[:, 0], shared[:, 0]]).sigmoid()
        return x * (1 + factors.transpose(1, 2)[..., None])

    def extra_repr(self) -> str:
        return f'num_previous={self.num_previous}'
