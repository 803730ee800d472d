"""The macro-architecture and timm's model protocol, written once for every family.

A backbone is stem -> stages -> norm -> head. The skeleton is given those modules, it never asks which block they hold;
a family is a table of variants, a block and the rules that translate the authors' keys.

Letters: B batch, C channels, H W height and width in pixels or positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from timm.layers import ClassifierHead
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from zoo.norm import LayerNorm2d
from zoo.weights import rename_foreign_keys

KeyRules = tuple[tuple[str, 'str | Callable | tuple | None'], ...]
ValueRules = tuple[tuple[str, Callable[[Tensor, torch.Size], Tensor]], ...]


class Stage(nn.Module):
    """(B, C, H, W) -> (B, D, H', W'): a downsample, then blocks, then a tail.

    Args:
        blocks: modules applied in order, in the layout of `channels_last`.
        downsample: (B, C, H, W) -> (B, D, H', W'), nothing when None.
        channels_last: the blocks take (B, H, W, D) instead of (B, D, H, W).
        tail: keeps (B, D, H', W'), nothing when None.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        downsample: nn.Module | None = None,
        channels_last: bool = True,
        tail: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.Sequential(*blocks)
        self.tail = tail or nn.Identity()
        self.channels_last = channels_last
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.channels_last:
            # In this order in memory too: else all that the blocks do, and its gradients, would go against the grain.
            x = x.permute(0, 2, 3, 1).contiguous()
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint_seq(self.blocks, x)
        else:
            x = self.blocks(x)
        return self.tail(x.permute(0, 3, 1, 2) if self.channels_last else x)


class Backbone(nn.Module):
    """(B, in_chans, H, W) -> (B, num_classes): timm's protocol over `stem`, `stages`, `norm` and `head`.

    Every stage is one feature of `forward_intermediates`. Any H and W are taken; what is bound to a size (a dense
    position table) follows `set_input_size`.

    Args:
        stem: (B, in_chans, H, W) -> (B, C, H', W').
        stages: the features in order.
        norm: last normalisation, (B, C, H, W) -> (B, num_features, H, W), before the pooling.
        feature_info: per stage `num_chs`, `reduction` (pixels per position) and `module`.
        num_classes: size of the classifier, 0 for none.
        in_chans: channels of the image.
        global_pool: a pooling of timm, '' for none.
        drop_rate: dropout before the classifier.
        out_norms: stages whose features are normalised, each by a norm of its own, as dense models want them; True for
            all. What the next stage takes stays as it is.
        num_features: channels after `norm`, those of the last stage when None.
        init: applied to every module.
    """

    key_rules: ClassVar[KeyRules] = ()
    """The authors' keys -> ours, first match wins, None drops; a table in place of a name is for another library."""
    value_rules: ClassVar[ValueRules] = ()
    """Key pattern -> how a tensor of another size becomes one of ours."""
    no_decay: ClassVar[tuple[str, ...]] = ()
    """Last parts of the names of parameters without weight decay, beyond biases and norms."""
    dilates: ClassVar[bool] = False
    """The constructor takes an `output_stride` finer than the family's own."""
    first_conv: ClassVar[str] = 'stem.conv'
    """Module that takes the image."""

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        norm: nn.Module,
        feature_info: list[dict[str, Any]],
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        out_norms: bool | Sequence[int] = (),
        num_features: int | None = None,
        init: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        levels = range(len(stages)) if out_norms is True else sorted(out_norms or ())
        if not set(levels) <= set(range(len(stages))):
            raise ValueError(f'out_norms names stages of 0 to {len(stages) - 1}, got {out_norms!r}')
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.feature_info = feature_info
        self.num_features = num_features or feature_info[-1]['num_chs']
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.norm = norm
        self.head = self.classifier(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()
        self.out_norms = nn.ModuleDict({str(i): self.out_norm(feature_info[i]['num_chs']) for i in levels})
        if init is not None:
            self.apply(init)
        self.register_load_state_dict_pre_hook(rename_foreign_keys)

    @staticmethod
    def translate(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A checkpoint whose layout is not that of torch -> what the key rules can name; any other as it is."""
        return state_dict

    def classifier(self, dim: int, num_classes: int, global_pool: str, drop_rate: float) -> Any:
        """(B, dim, H, W) -> (B, num_classes), with the methods and names of timm's `ClassifierHead`."""
        return ClassifierHead(dim, num_classes, pool_type=global_pool, drop_rate=drop_rate)

    @classmethod
    def output_stride(cls, **variant: Any) -> int:
        """Pixels per position of the last map of a variant, before it is built."""
        return 32

    @staticmethod
    def out_norm(dim: int) -> nn.Module:
        """The norm of a feature, (B, dim, H, W) -> (B, dim, H, W), see `out_norms`."""
        return LayerNorm2d(dim, eps=1e-5)

    @staticmethod
    def grid_of(img_size: int | tuple[int, int], reduction: int) -> tuple[int, int]:
        """(H, W) in positions of images of (H, W) pixels; what does not fill a position is padded."""
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        return -(-height // reduction), -(-width // reduction)

    @staticmethod
    def as_map(state: Tensor) -> Tensor:
        """What a stage gives -> its map (B, C, H, W), the same where stages pass on maps."""
        return state

    @staticmethod
    def as_features(state: Tensor) -> Tensor:
        """What a stage gives -> what the head takes, the same where stages pass on maps."""
        return state

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H', W'), normalised, not pooled."""
        return self.as_features(self.norm(self.stages(self.stem(x))))

    def forward_stages(self, x: Tensor, count: int) -> list[Tensor]:
        """(B, in_chans, H, W) -> the ends of the first `count` stages, each before the next downsample."""
        x = self.stem(x)
        maps = []
        for stage in self.stages[:count]:
            x = stage(x)
            maps.append(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, H', W') -> (B, num_classes), or (B, head_hidden_size) before the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    @torch.jit.ignore
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """(B, in_chans, H, W) -> the ends of the chosen stages, each before the next downsample.

        Args:
            x: images.
            indices: the last n stages if int, all if None, else the chosen ones.
            norm: apply the last normalisation to the last stage's map, unless that has one of `out_norms`.
            stop_early: leave out the stages after the last one chosen.
            output_fmt: 'NCHW' or 'NHWC', of the intermediates.
            intermediates_only: leave out the final features.
        """
        if output_fmt not in ('NCHW', 'NHWC'):
            raise ValueError(f"output_fmt must be 'NCHW' or 'NHWC', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.stages), indices)
        end = len(self.stages) - 1
        maps = self.forward_stages(x, last + 1 if stop_early else end + 1)
        taken = []
        for i, x in enumerate(maps):
            if str(i) in self.out_norms and i in take:
                taken.append(self.out_norms[str(i)](self.as_map(x)))
            elif i in take:
                taken.append(self.as_map(self.norm(x) if norm and i == end else x))
        if output_fmt == 'NHWC':
            taken = [t.permute(0, 2, 3, 1) for t in taken]
        if intermediates_only:
            return taken
        return self.as_features(x if stop_early and last < end else self.norm(x)), taken

    @torch.jit.ignore
    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages after the last chosen one and the norms of those not chosen. Returns the chosen indices."""
        take, last = feature_take_indices(len(self.stages), indices)
        shorter = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        self.out_norms = nn.ModuleDict({key: norm for key, norm in self.out_norms.items() if int(key) in take})
        if prune_norm or shorter:
            self.norm = nn.Identity()
            channels = self.feature_info[last]['num_chs']
            prune_head = prune_head or shorter or channels != self.num_features
            self.num_features = channels
        if prune_head:
            self.head = self.pruned_head()
            self.reset_classifier(0, '')
        return take

    def pruned_head(self) -> Any:
        """(B, num_features, H, W) as it is, until `reset_classifier` asks for classes."""
        return self.classifier(self.num_features, 0, '', self.drop_rate)

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last linear layer, an identity without classes."""
        return self.head.fc

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the classifier by a new one of `num_classes`; the pooling stays when None."""
        like = next(self.parameters())
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        self.head.to(like.device, like.dtype).train(self.training)
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades compute for memory: activations inside the blocks are computed again in the backward pass."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    @torch.jit.ignore
    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Resizes what is bound to the size of the maps, such as dense position tables, to images of (H, W) pixels."""
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'img_size must be one or two positive numbers of pixels, got {img_size!r}')
        for part, info in ((self.stem, self.feature_info[0]), *zip(self.stages, self.feature_info)):
            positions = self.grid_of(size, info['reduction'])
            for module in part.modules():
                resize = getattr(module, 'set_input_size', None)
                if resize is not None:
                    resize(positions)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups in order of depth, for layer decay: stages if `coarse`, else blocks."""
        blocks: list[tuple[str, tuple[int] | None]] = [(r'^stages\.(\d+)', None)]
        if not coarse:
            ends = [(r'^stages\.(\d+)\.downsample', (0,)), (r'^stages\.(\d+)\.tail', (99999,))]
            blocks = [*ends, (r'^stages\.(\d+)\.blocks\.(\d+)', None)]
        return {'stem': r'^stem', 'blocks': [*blocks, (r'^norm|^out_norms', (99999,))]}

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay must leave alone."""
        return {name for name, _ in self.named_parameters() if name.rsplit('.', 1)[-1] in self.no_decay}


class HierarchicalBackbone(Backbone):
    """(B, in_chans, H, W) -> (B, num_classes): stages of equal blocks, each coarser and wider than the one before.

    Args:
        depths: blocks per stage.
        dims: channels per stage.
        stem: (B, in_chans, H, W) -> (B, dims[0], H', W').
        downsample: stage -> module that leads from `dims[stage - 1]` to `dims[stage]`, or None; not asked for stage 0.
        block: (stage, index in the stage, drop path rate) -> module.
        norm: last normalisation, of `dims[-1]` channels.
        tail: stage -> module after its blocks, or None.
        reductions: pixels per position after each stage.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        channels_last: layout of the blocks, see `Stage`.
        head: `num_classes`, `in_chans`, `global_pool`, `drop_rate`, `out_norms`, `num_features` and `init` of
            `Backbone`.
    """

    stage: ClassVar[type[Stage]] = Stage
    """Class of the stages."""

    def __init__(
        self,
        *,
        depths: Sequence[int],
        dims: Sequence[int],
        stem: nn.Module,
        downsample: Callable[[int], nn.Module | None],
        block: Callable[[int, int, float], nn.Module],
        norm: nn.Module,
        tail: Callable[[int], nn.Module | None] = lambda stage: None,
        reductions: Sequence[int] = (4, 8, 16, 32),
        drop_path_rate: float = 0.0,
        channels_last: bool = True,
        **head: Any,
    ) -> None:
        if not len(depths) == len(dims) == len(reductions):
            raise ValueError(f'one entry per stage is needed, got {depths=}, {dims=}, {reductions=}')
        total, placed, stages = sum(depths), 0, []
        for i, depth in enumerate(depths):
            rates = [drop_path_rate * (placed + j) / max(total - 1, 1) for j in range(depth)]
            blocks = [block(i, j, rate) for j, rate in enumerate(rates)]
            stages.append(self.stage(blocks, downsample(i) if i else None, channels_last, tail(i)))
            placed += depth
        feature_info = [
            {'num_chs': dim, 'reduction': reduction, 'module': f'stages.{i}'}
            for i, (dim, reduction) in enumerate(zip(dims, reductions))
        ]
        super().__init__(stem=stem, stages=stages, norm=norm, feature_info=feature_info, **head)
