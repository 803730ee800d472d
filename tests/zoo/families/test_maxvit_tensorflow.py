"""MaxViT's weights under the names and in the layout of the authors' TensorFlow code."""

import re

import numpy as np
import pytest
import timm
import torch

import zoo
from checkpoints import CheckpointError
from tests.checkpoints.test_tensorflow import write_bundle

SMALL = dict(depths=(1, 2, 1, 1), embed_dim=32, stem_dim=16, num_classes=5)
NAMES = {
    'stem.conv1': 'stem/conv_0',
    'stem.norm1': 'stem/norm_0',
    'stem.conv2': 'stem/conv_1',
    '.conv.se.fc1': '/mbconv/se/reduce_conv2d',
    '.conv.se.fc2': '/mbconv/se/expand_conv2d',
    '.conv.': '/mbconv/',
    '.attn_block.norm1': '/attn_layer_norm',
    '.attn_block.norm2': '/ffn_layer_norm',
    '.attn_block.mixer.proj': '/attention/o',
    '.attn_block.mixer.': '/attention/',
    '.attn_block.mlp.fc1': '/ffn/expand_dense',
    '.attn_block.mlp.fc2': '/ffn/shrink_dense',
    '.attn_grid.norm1': '/attn_layer_norm_1',
    '.attn_grid.norm2': '/ffn_layer_norm_1',
    '.attn_grid.mixer.proj': '/attention_1/o',
    '.attn_grid.mixer.': '/attention_1/',
    '.attn_grid.mlp.fc1': '/ffn_1/expand_dense',
    '.attn_grid.mlp.fc2': '/ffn_1/shrink_dense',
    'head.norm': 'final_layer_norm',
    'head.pre_logits.fc': 'cls_head/inner_dense',
    'head.fc': 'cls_head/logit_dense',
}
"""Our names -> TensorFlow's, the first that is found in a key."""


def small(**options):
    torch.manual_seed(0)
    model = timm.create_model('zoo_maxvit_tiny_tf_224', **SMALL, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def as_tensorflow(model, scope='maxvit/', ending='/ExponentialMovingAverage'):
    """The model's variables as the authors' code creates them, name -> array."""
    variables = {}
    for key, value in model.state_dict().items():
        if key.endswith('num_batches_tracked'):
            continue
        ours = next(name for name in NAMES if name in key)
        name = key.replace(ours, NAMES[ours])
        name = re.sub(r'^stages\.(\d+)\.blocks\.(\d+)', lambda m: f'block_{int(m[1]):02}_{int(m[2]):02}', name)
        path, _, leaf = name.rpartition('/' if name.endswith('rpb') or 'qkv' in name else '.')
        norm = 'norm' in path.split('/')[-1]
        heads = value.shape[0] // 96 if 'qkv' in leaf else 0
        if leaf == 'qkv.weight':
            parts = value.unflatten(0, (3, heads, 32)).permute(0, 3, 1, 2)
            variables.update({f'{path}/{part}/weight': array for part, array in zip('qkv', parts)})
        elif leaf == 'qkv.bias':
            parts = value.unflatten(0, (3, heads, 32))
            variables.update({f'{path}/{part}/bias': array for part, array in zip('qkv', parts)})
        elif leaf == 'rpb':
            variables[f'{path}/relative_bias'] = value
        elif norm:
            leaves = dict(weight='gamma', bias='beta', running_mean='moving_mean', running_var='moving_variance')
            variables[f'{path}/{leaves[leaf]}'] = value
        elif value.ndim == 4:
            depthwise = 'depthwise' in path
            order, kernel = ((2, 3, 0, 1), 'depthwise_kernel') if depthwise else ((2, 3, 1, 0), 'kernel')
            variables[f'{path.replace(".", "/")}/{kernel}'] = value.permute(order)
        elif path.endswith('/o') and leaf == 'weight':
            variables[f'{path}/weight'] = value.T.unflatten(0, (-1, 32))
        else:
            variables[f'{path.replace(".", "/")}/{leaf}'] = value.T if value.ndim == 2 else value
    return {f'{scope}{name}{ending}': value.numpy() for name, value in variables.items()}


def decoys(averaged):
    """What else lies in the authors' files: the weights before averaging, optimizer states and counters."""
    raw = {name.removesuffix('/ExponentialMovingAverage'): value + 1 for name, value in averaged.items()}
    slots = {f'{name}/adam_m': value for name, value in raw.items()}
    return {**raw, **slots, 'global_step': np.array(93600), 'beta1_power': np.array(0.9, np.float32)}


@pytest.mark.parametrize('kind', ['npz', 'bundle'])
def test_authors_files_load(tmp_path, kind):
    model = small()
    averaged = as_tensorflow(model)
    variables = {**decoys(averaged), **averaged}
    file = tmp_path / ('weights.npz' if kind == 'npz' else 'model.ckpt-93600.index')
    np.savez(file, **variables) if kind == 'npz' else write_bundle(file, variables)
    overlay = dict(file=str(file), num_classes=5)
    loaded = timm.create_model('zoo_maxvit_tiny_tf_224', pretrained=True, pretrained_cfg_overlay=overlay, **SMALL)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    zoo.load_checkpoint(loaded, file, use_ema=False)
    assert torch.equal(loaded.stem.conv2.bias, model.stem.conv2.bias + 1)


def test_names_of_any_scope_and_other_windows(tmp_path):
    model = small()
    np.savez(tmp_path / 'w.npz', **as_tensorflow(model, scope='', ending=':0'))
    wide = timm.create_model('zoo_maxvit_tiny_tf_384', **SMALL).eval()
    zoo.load_checkpoint(wide, tmp_path / 'w.npz')
    assert wide.stages[0].blocks[0].attn_block.mixer.rpb.shape == (1, 23, 23)


def test_what_is_missing_is_named_in_our_words(tmp_path):
    variables = as_tensorflow(small(), ending='')
    del variables['maxvit/block_01_01/attention_1/k/bias']
    np.savez(tmp_path / 'w.npz', **variables)
    with pytest.raises(CheckpointError, match=r'missing.*\n.*stages\.1\.blocks\.1\.attn_grid\.mixer\.qkv\.bias'):
        zoo.load_checkpoint(small(), tmp_path / 'w.npz')
