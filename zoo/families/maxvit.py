"""MaxViT: MBConv, attention within windows and attention over a grid, in every block.

Paper: https://arxiv.org/abs/2204.01697
Code: https://github.com/google-research/maxvit (Apache-2.0), maxvit/models/maxvit.py, in TensorFlow, and its port
https://github.com/huggingface/pytorch-image-models (Apache-2.0), timm/models/maxxvit.py. Both layouts are loaded.

timm's models take the one size of their name. Here the windows have the size that the name implies and images may have
any; other windows take resized tables. Stochastic depth rises as in the authors' code, whose last block stays one step
below the full rate.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath, GELUTanh, NormMlpClassifierHead
from timm.models import register_notrace_module
from torch import Tensor, nn

from ops.conv.mbconv import MBConv, SameConv2d
from ops.window.block_grid import BlockAttention, GridAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import PreNormBlock, resize_bias_table
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

for module in (BlockAttention, GridAttention, MBConv, SameConv2d):
    register_notrace_module(module)

TINY = dict(depths=(2, 2, 5, 2), embed_dim=64, drop_path_rate=0.2)
SMALL = dict(depths=(2, 2, 5, 2), embed_dim=96, drop_path_rate=0.3)
BASE = dict(depths=(2, 6, 14, 2), embed_dim=96, drop_path_rate=0.4)
LARGE = dict(depths=(2, 6, 14, 2), embed_dim=128, stem_dim=128, drop_path_rate=0.6)
XLARGE = dict(depths=(2, 6, 14, 2), embed_dim=192, stem_dim=192, drop_path_rate=0.6)

VARIANTS = {
    f'zoo_maxvit_{size}_tf_{side}': dict(variant, window_size=side // 32)
    for size, variant in dict(tiny=TINY, small=SMALL, base=BASE, large=LARGE, xlarge=XLARGE).items()
    for side in (224, 384, 512)
}

KEY_RULES = (  # of timm's port; `from_tensorflow` has the authors'
    (r'\.(height|width)_lookup$', None),
    (r'\.conv\.conv1_1x1\.', '.conv.expand_conv.'),
    (r'\.conv\.norm1\.', '.conv.expand_norm.'),
    (r'\.conv\.conv2_kxk\.', '.conv.depthwise_conv.'),
    (r'\.conv\.norm2\.', '.conv.depthwise_norm.'),
    (r'\.conv\.conv3_1x1\.', '.conv.shrink_conv.'),
    (r'\.conv\.shortcut\.expand\.', '.conv.shortcut_conv.'),
    (r'\.attn\.rel_pos\.relative_position_bias_table$', '.mixer.rpb'),
    (r'\.attn\.', '.mixer.'),
)


def attention_block(
    dim: int, mixer: nn.Module, mlp_ratio: float = 4.0, proj_drop: float = 0.0, drop_path: float = 0.0
) -> PreNormBlock:
    """(B, H, W, C) -> (B, H, W, C): attention and MLP."""
    mlp = Mlp(dim, int(dim * mlp_ratio), partial(nn.GELU, approximate='tanh'), proj_drop)
    return PreNormBlock(dim, mixer, mlp, drop_path=drop_path)


class MaxViTBlock(nn.Module):
    """(B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride)): a convolution, then two attention blocks in NHWC."""

    def __init__(self, conv: nn.Module, attn_block: nn.Module, attn_grid: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.attn_block = attn_block
        self.attn_grid = attn_grid

    def forward(self, x: Tensor) -> Tensor:
        # Then neither permutation copies: the map stays NHWC in memory from the first block on.
        x = self.conv(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        return self.attn_grid(self.attn_block(x)).permute(0, 3, 1, 2)


class MaxViT(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every stage.
        stem_dim: channels of the stem.
        head_dim: channels per attention head.
        mlp_ratio: hidden channels of an MLP, and of the convolutions, over their channels.
        window_size: side of the windows in positions, one number or one per axis.
        grid_size: rows and columns of the grid, `window_size` when None.
        drop_path_rate: stochastic depth that the block after the last one would have, rising linearly from 0.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    first_conv = 'stem.conv1'
    no_decay = ('rpb',)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        stem_dim: int = 64,
        head_dim: int = 32,
        mlp_ratio: float = 4.0,
        window_size: int | Sequence[int] = 7,
        grid_size: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        drops: dict[str, Any] = dict(attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim, before = dims[stage], [stem_dim, *dims][stage + (index > 0)]
            drop = DropPath(drop_path) if drop_path else None
            conv = MBConv(before, dim, stride=1 if index else 2, expand_ratio=mlp_ratio, drop_path=drop)

            def attention(mixer: Callable[..., nn.Module], size: int | Sequence[int]) -> nn.Module:
                core = mixer(dim, dim // head_dim, size, qkv_bias=qkv_bias, **drops)
                return attention_block(dim, core, mlp_ratio, proj_drop_rate, drop_path)

            return MaxViTBlock(
                conv, attention(BlockAttention, window_size), attention(GridAttention, grid_size or window_size)
            )

        stem = OrderedDict(
            conv1=SameConv2d(in_chans, stem_dim, 3, 2),
            norm1=nn.BatchNorm2d(stem_dim, eps=1e-3, momentum=0.01),
            act1=GELUTanh(),
            conv2=nn.Conv2d(stem_dim, stem_dim, 3, 1, 1),
        )
        super().__init__(
            depths=depths,
            dims=dims,
            stem=nn.Sequential(stem),
            downsample=lambda stage: None,
            block=block,
            norm=nn.Identity(),
            reductions=[4 * 2**i for i in range(len(depths))],
            drop_path_rate=drop_path_rate * (1 - 1 / sum(depths)),
            channels_last=False,
            in_chans=in_chans,
            init=init_normal,
            **common,
        )

    @staticmethod
    def translate(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return from_tensorflow(state_dict) if any('/' in key for key in state_dict) else state_dict

    def classifier(self, dim: int, num_classes: int, global_pool: str, drop_rate: float) -> nn.Module:
        """Pooling, layer norm, a hidden layer with tanh, and the classifier."""
        norm = partial(LayerNorm2d, eps=1e-5)
        return NormMlpClassifierHead(dim, num_classes, dim, pool_type=global_pool, drop_rate=drop_rate, norm_layer=norm)

    def pruned_head(self) -> nn.Module:
        return super().classifier(self.num_features, 0, '', self.drop_rate)


def init_normal(module: nn.Module) -> None:
    """Normal weights of deviation 0.02 and no biases, for linear layers and convolutions."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


TENSORFLOW_PARTS = {
    'conv_0': 'conv1',
    'norm_0': 'norm1',
    'conv_1': 'conv2',
    'mbconv': 'conv',
    'reduce_conv2d': 'fc1',
    'expand_conv2d': 'fc2',
    'attn_layer_norm': 'attn_block.norm1',
    'attention': 'attn_block.mixer',
    'ffn_layer_norm': 'attn_block.norm2',
    'ffn': 'attn_block.mlp',
    'attn_layer_norm_1': 'attn_grid.norm1',
    'attention_1': 'attn_grid.mixer',
    'ffn_layer_norm_1': 'attn_grid.norm2',
    'ffn_1': 'attn_grid.mlp',
    'expand_dense': 'fc1',
    'shrink_dense': 'fc2',
    'o': 'proj',
    'final_layer_norm': 'head.norm',
    'cls_head': 'head',
    'inner_dense': 'pre_logits.fc',
    'logit_dense': 'fc',
}
"""Parts of the paths of TensorFlow's variables -> ours; the others have the same name."""
TENSORFLOW_LEAVES = {
    'kernel': ('weight', lambda value: value.permute(3, 2, 0, 1)),
    'depthwise_kernel': ('weight', lambda value: value.permute(2, 3, 0, 1)),
    'weight': ('weight', lambda value: value.flatten(1).T),
    'bias': ('bias', Tensor.flatten),
    'gamma': ('weight', Tensor.contiguous),
    'beta': ('bias', Tensor.contiguous),
    'moving_mean': ('running_mean', Tensor.contiguous),
    'moving_variance': ('running_var', Tensor.contiguous),
    'relative_bias': ('rpb', Tensor.contiguous),
}
"""Ends of those paths -> ours, and how the values become ours."""


def from_tensorflow(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' variables, of any scope, as our state dict, without those of the optimizer and counters."""
    tensors: dict[str, Tensor] = {}
    for path, value in variables.items():
        *parts, leaf = re.sub(r'^(.*/)?(?=(stem|block_\d+_\d+|final_layer_norm|cls_head)/)|:0$', '', path).split('/')
        if leaf not in TENSORFLOW_LEAVES:
            continue
        name, convert = TENSORFLOW_LEAVES[leaf]
        if parts[-1:] == ['o'] and leaf == 'weight':
            value = value.flatten(0, 1)  # from (heads, channels per head)
        place = '.'.join(TENSORFLOW_PARTS.get(part, part) for part in parts)
        place = re.sub(r'^block_(\d+)_(\d+)', lambda m: f'stages.{int(m[1])}.blocks.{int(m[2])}', place)
        tensors[f'{place}.{name}'] = convert(value)
        if leaf == 'moving_mean':
            tensors[f'{place}.num_batches_tracked'] = torch.tensor(0)
    for key in [key for key in tensors if re.search(r'\.mixer\.q\.', key)]:
        three = [key.replace('.q.', f'.{part}.') for part in 'qkv']
        if all(part in tensors for part in three):
            tensors[key.replace('.q.', '.qkv.')] = torch.cat([tensors.pop(part) for part in three])
    return tensors


register_family(
    __name__, MaxViT, VARIANTS, KEY_RULES, value_rules=((r'\.rpb$', partial(resize_bias_table, mode='bilinear')),)
)
