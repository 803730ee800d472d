"""Any operator in any place: built by name, in the layout of where it is put."""

from typing import Any

from torch import Tensor, nn

from ops import registry
from ops.registry import NCHW, NHWC


class Permuted(nn.Module):
    """A mixer of the one layout where the other one is wanted: (B, H, W, C) <-> (B, C, H, W) before and after.

    Args:
        mixer: keeps the shape.
        layout: of this module's input and output; the mixer has the other one.
    """

    def __init__(self, mixer: nn.Module, layout: str) -> None:
        super().__init__()
        self.mixer = mixer
        self.inwards, self.outwards = [(0, 3, 1, 2), (0, 2, 3, 1)][:: 1 if layout == NHWC else -1]

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x.permute(self.inwards)).permute(self.outwards)


def build_mixer(name: str, dim: int, num_heads: int | None = None, layout: str = NHWC, **options: Any) -> nn.Module:
    """An operator of `ops.registry.OPS` that takes and gives maps of `layout`.

    Args:
        name: of the operator, such as 'na', 'bra' or 'eca'.
        dim: channels.
        num_heads: attention heads, of 32 channels when None; not used by an operator without heads.
        layout: 'NHWC' for (B, H, W, C) or 'NCHW' for (B, C, H, W).
        options: of the operator; ops/README.md lists them.

    Raises:
        ValueError: no such operator or layout, or a value that the operator refuses.
        TypeError: an option that the operator does not have.
    """
    if layout not in (NHWC, NCHW):
        raise ValueError(f"layout must be 'NHWC' or 'NCHW', got {layout!r}")
    mixer = registry.build(name, dim, num_heads, **options)
    return mixer if registry.OPS[name].layout == layout else Permuted(mixer, layout)
