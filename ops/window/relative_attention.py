"""Dense attention over the whole map with a learned bias for each head and relative position.

Paper: https://arxiv.org/abs/2204.07143 (the baseline ViT-rpb)
Code: https://github.com/SHI-Labs/Neighborhood-Attention-Transformer (MIT), classification/vitrpb.py
Letters: B batch, H, W height and width in positions, L positions, C channels, N heads, D channels per head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._eager import is_transformed
from ops._linear import Linear
from ops.window.neighborhood.functional import attend, make_window


def relative_bias(table: Tensor) -> Tensor:
    """(N, 2 * H - 1, 2 * W - 1) -> (N, H * W, H * W): the table's entry of each query and key. Scriptable.

    The entry of an axis is key - query + size - 1.
    """
    height, width = (table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2
    # The keys of query i are the entries from size - 1 - i on, hence the flip.
    return table.unfold(1, height, 1).unfold(2, width, 1).flip(1, 2).flatten(3, 4).flatten(1, 2)


def resize_table(table: Tensor, size: list[int], mode: str = 'bicubic') -> Tensor:
    """(N, 2 * H0 - 1, 2 * W0 - 1) -> (N, 2 * H - 1, 2 * W - 1), without antialiasing. Scriptable."""
    target = [2 * size[0] - 1, 2 * size[1] - 1]
    if table.shape[1] == target[0] and table.shape[2] == target[1]:
        return table
    resized = F.interpolate(table[None].float(), size=target, mode=mode, align_corners=False)
    return resized[0].to(table.dtype)


def biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, dropout_p: float) -> Tensor:
    """(B, N, L, D), twice (B, N, S, D), a bias that broadcasts to (B, N, L, S) -> (B, N, L, D).

    softmax(scale * q k + bias) v.
    """
    if bias is not None and q.device.type == 'cpu' and (bias.requires_grad or is_transformed()):
        # The fused kernel of the CPU has no gradient for the bias, and what stands in for it is slower than this.
        scores = (q * scale) @ k.mT + bias
        return F.dropout(scores.softmax(-1), dropout_p) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout_p, scale=scale)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, scale: float, dropout_p: float) -> Tensor:
    """(B, H, W, N, D) x 3 -> (B, H, W, N, D). Scriptable."""
    x = F.scaled_dot_product_attention(
        q.flatten(1, 2).transpose(1, 2),
        k.flatten(1, 2).transpose(1, 2),
        v.flatten(1, 2).transpose(1, 2),
        attn_mask=relative_bias(table)[None],
        dropout_p=dropout_p,
        scale=scale,
    )
    return x.transpose(1, 2).reshape(q.shape)


class RelativePositionAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), every position to every other. Work and memory grow with (H * W) ** 2.

    A map of another size than `input_size` takes the bias table resized bicubically.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        input_size: H and W the bias table is made for.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        input_size: tuple[int, int],
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        self.rpb = nn.Parameter(torch.empty(num_heads, 2 * input_size[0] - 1, 2 * input_size[1] - 1, **dd))
        nn.init.trunc_normal_(self.rpb, std=0.02, a=-2.0, b=2.0)
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def set_input_size(self, input_size: tuple[int, int]) -> None:
        """Make the bias table that of another map size: a new, bicubically resized `rpb`."""
        with torch.no_grad():
            table = resize_table(self.rpb, list(input_size))
        self.rpb = nn.Parameter(table.clone(), requires_grad=self.rpb.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        size = list(x.shape[1:-1])
        q, k, v = self.qkv(x).unflatten(-1, [3, self.num_heads, -1]).unbind(-3)
        table = resize_table(self.rpb, size).to(q.dtype)
        dropout_p = self.attn_drop if self.training else 0.0
        if torch.jit.is_scripting():
            x = dense_attention(q, k, v, table, self.scale, dropout_p)
        else:
            # a neighborhood as large as the map is the map
            x = attend(q, k, v, make_window(2, size), self.scale, table, dropout_p, None)
        return self.proj_drop(self.proj(x.flatten(-2)))

    def extra_repr(self) -> str:
        height, width = (self.rpb.shape[1] + 1) // 2, (self.rpb.shape[2] + 1) // 2
        return f'num_heads={self.num_heads}, input_size=({height}, {width})'
