"""MaxViT's operators in the layout of its port: a block around windows or a grid, the attention alone, and MBConv.

What the arguments leave open follows from the shapes of keys and maps.
"""

import torch
from torch import Tensor

from ops.conv.mbconv import MBConv
from ops.window.block_grid import BlockAttention, GridAttention
from zoo.families.maxvit import attention_block
from zoo.golden.module_operator import ModuleOperator
from zoo.golden.reference import Jobs, Reference

TABLE = 'rel_pos.relative_position_bias_table'


def block(reference: Reference, device: torch.device) -> Jobs:
    """Norm, attention and MLP, (B, H, W, C)."""
    heads, *table = reference.config['keys'][f'attn.{TABLE}']
    dim = reference.config['keys']['norm1.weight'][0]
    mixer = GridAttention if reference.title.startswith('op_grid') else BlockAttention
    operator = ModuleOperator(
        build=lambda arguments: attention_block(dim, mixer(dim, heads, [(side + 1) // 2 for side in table])),
        key_rules=((rf'^attn\.{TABLE}$', 'mixer.rpb'), (r'^attn\.', 'mixer.')),
    )
    return operator(reference, device)


def attention(reference: Reference, device: torch.device) -> Jobs:
    """The attention of maps or sequences (B, ..., C) that are windows."""
    heads, *table = reference.config['keys'][TABLE]
    dim = reference.config['keys']['proj.weight'][0]
    size = [(side + 1) // 2 for side in table]

    def call(module: torch.nn.Module, x: Tensor, arguments: object) -> Tensor:
        return module(x.reshape(-1, *size, dim)).reshape(x.shape)

    operator = ModuleOperator(lambda arguments: BlockAttention(dim, heads, size), ((rf'^{TABLE}$', 'rpb'),), call)
    return operator(reference, device)


def mbconv(reference: Reference, device: torch.device) -> Jobs:
    """MBConv, (B, C, H, W)."""
    keys, arrays = reference.config['keys'], reference.arrays
    dim, out_dim = keys['pre_norm.weight'][0], keys['conv3_1x1.bias'][0]
    stride = -(-arrays.shape('x')[2] // arrays.shape('y')[2])
    rules = (
        (r'^conv1_1x1\.', 'expand_conv.'),
        (r'^norm1\.', 'expand_norm.'),
        (r'^conv2_kxk\.', 'depthwise_conv.'),
        (r'^norm2\.', 'depthwise_norm.'),
        (r'^conv3_1x1\.', 'shrink_conv.'),
        (r'^shortcut\.expand\.', 'shortcut_conv.'),
    )
    return ModuleOperator(lambda arguments: MBConv(dim, out_dim, stride), rules)(reference, device)


OPERATORS = {'block_attn_*': block, 'grid_attn_*': block, 'attn_cl_*': attention, 'mbconv_*': mbconv}
