"""Networks with a class token: the skeleton where stages pass on tokens instead of maps.

A stem or a downsample ends in `TokenEmbedding`; from there on `Tokens` flow, prefix tokens such as a class token and
then the positions of a map. Blocks take the tokens and the grid they lie on. Stages before it pass on maps.

Letters: B batch, P prefix tokens, C channels, H W height and width in pixels or positions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import global_pool_nlc
from timm.models import checkpoint, register_notrace_function, register_notrace_module
from torch import Tensor, nn

from ops._norm import LayerNorm, add_norm
from zoo.parts import PaddedPatchConv, PositionEmbedding, PreNormBlock, add, dropped, init_transformer
from zoo.skeleton import Backbone


class Tokens(NamedTuple):
    """(B, P + H * W, C): prefix tokens and the positions of a map of `grid` (H, W), row by row."""

    x: Tensor
    grid: tuple[int, int]


@register_notrace_function
def tokens_to_map(state: Tensor | Tokens) -> Tensor:
    """The map (B, C, H, W) of what a stage gives, without prefix tokens."""
    if not isinstance(state, Tokens):
        return state
    x, (height, width) = state
    return x[:, x.shape[1] - height * width :].unflatten(1, (height, width)).permute(0, 3, 1, 2)


@register_notrace_function
def tokens_to_features(state: Tensor | Tokens) -> Tensor:
    """The tokens (B, P + H * W, C) of what a stage gives, or its map (B, C, H, W) where it has no tokens."""
    return state.x if isinstance(state, Tokens) else state


@register_notrace_module
class TokenEmbedding(PositionEmbedding):
    """(B, C, H, W) -> tokens (B, P + H * W, C): learned prefix tokens before a map, and positions added to both.

    Args:
        dim: channels C.
        grid_size: H and W that the positions are learned for; other maps take them resized.
        prefix_tokens: number P.
        mode: how positions are resized, 'bilinear' or 'bicubic'.
        drop: dropout ratio.
    """

    def __init__(
        self, dim: int, grid_size: tuple[int, int], prefix_tokens: int = 1, mode: str = 'bicubic', drop: float = 0.0
    ) -> None:
        super().__init__(dim, grid_size, mode, drop, prefix_tokens)
        self.cls_token = nn.Parameter(torch.empty(1, prefix_tokens, dim))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tokens:  # type: ignore[override]
        grid = (x.shape[2], x.shape[3])
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        return Tokens(self.drop(tokens + self.positions(grid)), grid)


@register_notrace_module
class TokenStage(nn.Module):
    """Tokens, or what `downsample` makes tokens of -> tokens.

    Args:
        blocks: called one after the other with (B, P + H * W, C) and the grid (H, W); they keep the shape.
        downsample: ends in a `TokenEmbedding`; nothing when None.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False

    def forward(self, tokens: Tokens | Tensor) -> Tokens:
        x, grid = self.downsample(tokens)
        for block in self.blocks:
            x = checkpoint(block, x, grid) if self.grad_checkpointing else block(x, grid)
        return Tokens(x, grid)


class TokenBlock(PreNormBlock):
    """(B, P + H * W, C) and (H, W) -> (B, P + H * W, C): a pre-norm block whose mixer takes the grid too."""

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:  # type: ignore[override]
        x, y = add_norm(self.norm1, x)
        y = self.mixer(y, grid)
        x, y = add_norm(self.norm2, x, *dropped(self.drop_path1, self.scale1(y)))
        return add(x, *dropped(self.drop_path2, self.scale2(self.mlp(y))))


class SequenceBlock(PreNormBlock):
    """(B, L, C) and a grid -> (B, L, C): a pre-norm block whose mixer has no use for the grid."""

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:  # type: ignore[override]
        return super().forward(x)


@register_notrace_module
class TokenNorm(LayerNorm):
    """Tokens -> tokens."""

    def forward(self, tokens: Tokens) -> Tokens:  # type: ignore[override]
        return Tokens(super().forward(tokens.x), tokens.grid)


class TokenPool(nn.Module):
    """(B, P + L, C) -> (B, C): the first token, or what the others have in common; nothing is pooled by ''.

    Args:
        pool_type: 'token', 'avg', 'max', 'avgmax' or ''.
        prefix_tokens: number P.
    """

    def __init__(self, pool_type: str, prefix_tokens: int) -> None:
        super().__init__()
        known = ('token', 'avg', 'max', 'avgmax', '')
        if pool_type not in known:
            raise ValueError(f'global_pool must be one of {", ".join(map(repr, known))}, got {pool_type!r}')
        self.pool_type, self.prefix_tokens = pool_type, prefix_tokens

    def feat_mult(self) -> int:
        """Channels of the output over those of the input."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        return global_pool_nlc(x, self.pool_type, self.prefix_tokens)

    def extra_repr(self) -> str:
        return f'pool_type={self.pool_type!r}, prefix_tokens={self.prefix_tokens}'


@register_notrace_module
class TokenHead(nn.Module):
    """(B, P + L, C) -> (B, num_classes), with the names and methods of timm's `ClassifierHead`.

    Args:
        in_features: channels C.
        num_classes: size of the classifier, 0 for none.
        pool_type: see `TokenPool`.
        drop_rate: dropout before the classifier.
        prefix_tokens: number P.
    """

    def __init__(
        self, in_features: int, num_classes: int, pool_type: str, drop_rate: float, prefix_tokens: int
    ) -> None:
        super().__init__()
        self.in_features, self.prefix_tokens = in_features, prefix_tokens
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, pool_type)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """A new classifier, and another pooling unless None."""
        if pool_type is not None:
            self.global_pool = TokenPool(pool_type, self.prefix_tokens)
        self.fc = nn.Linear(self.in_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.global_pool(x))
        return x if pre_logits else self.fc(x)


class TokenBackbone(Backbone):
    """(B, in_chans, H, W) -> (B, num_classes): a backbone that ends in tokens, classified by the first of them.

    `forward_features` gives tokens (B, P + H' * W', C), as timm's ViT does; features are maps without prefix tokens.

    Args:
        prefix_tokens: number P.
        global_pool: see `TokenPool`.
        common: the other arguments of `Backbone`; `norm` is a `TokenNorm`, and the last stages are `TokenStage`s.
    """

    def __init__(self, *, prefix_tokens: int = 1, global_pool: str = 'token', **common: Any) -> None:
        self.num_prefix_tokens = prefix_tokens
        super().__init__(global_pool=global_pool, **common)

    @staticmethod
    def as_map(state: Any) -> Tensor:
        return tokens_to_map(state)

    @staticmethod
    def as_features(state: Any) -> Tensor:
        return tokens_to_features(state)

    def classifier(self, dim: int, num_classes: int, global_pool: str, drop_rate: float) -> Any:
        if isinstance(self.stages[-1], TokenStage):
            return TokenHead(dim, num_classes, global_pool, drop_rate, self.num_prefix_tokens)
        return super().classifier(dim, num_classes, global_pool, drop_rate)  # pruned to a stage of maps


class PlainBackbone(TokenBackbone):
    """(B, in_chans, H, W) -> (B, num_classes): equal blocks over patches and a class token, as in ViT.

    Every block is a feature (B, embed_dim, H / patch_size, W / patch_size), before the last normalisation. Images that
    the patches do not fit are zero-padded at bottom and right.

    Args:
        embed_dim: channels of every block.
        depth: number of blocks.
        block: (index, drop path rate) -> module that takes tokens and the grid, see `TokenStage`.
        patch_size: pixels per side of a patch.
        img_size: pixels per side that the positions are learned for; other images take them resized.
        prefix_tokens: number P.
        in_chans: channels of the image.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        pos_drop_rate: dropout after the positions are added.
        eps: of the last normalisation.
        head: `num_classes`, `global_pool` and `drop_rate` of `Backbone`.
    """

    no_decay = ('cls_token', 'pos_embed')

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        block: Callable[[int, float], nn.Module],
        patch_size: int = 16,
        img_size: int | tuple[int, int] = 224,
        prefix_tokens: int = 1,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        eps: float = 1e-6,
        **head: Any,
    ) -> None:
        conv = PaddedPatchConv(in_chans, embed_dim, patch_size)
        embed = TokenEmbedding(embed_dim, self.grid_of(img_size, patch_size), prefix_tokens, drop=pos_drop_rate)
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        super().__init__(
            stem=nn.Sequential(OrderedDict(conv=conv, embed=embed)),
            stages=[TokenStage([block(i, rate)]) for i, rate in enumerate(rates)],
            norm=TokenNorm(embed_dim, eps=eps),
            feature_info=[dict(num_chs=embed_dim, reduction=patch_size, module=f'stages.{i}') for i in range(depth)],
            prefix_tokens=prefix_tokens,
            in_chans=in_chans,
            init=init_transformer,
            **head,
        )

    @classmethod
    def output_stride(cls, **variant: Any) -> int:
        return variant.get('patch_size', 16)
