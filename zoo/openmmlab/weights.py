"""Checkpoints of whole detectors and segmentors: the authors' of mmdet 2, mmseg 0 and detectron2 in today's models.

Names below `backbone.` go through the key rules of the backbone's family, or are renamed as timm renames its authors',
and its tables are fitted to its windows and sizes. Necks and heads of mmdet 2 and mmseg 0 are named as today's, but for
the transformers of Mask2Former; those of detectron2's Mask2Former have a table of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

import checkpoints
from checkpoints import CheckpointError, Coverage
from zoo import weights
from zoo.openmmlab import timm_models

_logger = logging.getLogger('zoo')

BACKBONE = 'backbone.'
PIXELS, QUERIES = r'^sem_seg_head\.pixel_decoder\.', r'^sem_seg_head\.predictor\.'
LAYERS = 'transformer_decoder.layers.'
DETECTRON2_RULES = (
    (r'^(criterion|pixel_mean|pixel_std)\b', None),
    (PIXELS + r'input_proj\.(\d)\.0\.', r'pixel_decoder.input_convs.\1.conv.'),
    (PIXELS + r'input_proj\.(\d)\.1\.', r'pixel_decoder.input_convs.\1.gn.'),
    (PIXELS + r'transformer\.level_embed$', r'pixel_decoder.level_encoding.weight'),
    (PIXELS + r'transformer\.(encoder\.layers\.\d+\.)norm1\.', r'pixel_decoder.\1norms.0.'),
    (PIXELS + r'transformer\.(encoder\.layers\.\d+\.)norm2\.', r'pixel_decoder.\1norms.1.'),
    (PIXELS + r'transformer\.(encoder\.layers\.\d+\.)linear1\.', r'pixel_decoder.\1ffn.layers.0.0.'),
    (PIXELS + r'transformer\.(encoder\.layers\.\d+\.)linear2\.', r'pixel_decoder.\1ffn.layers.1.'),
    (PIXELS + r'transformer\.', r'pixel_decoder.'),
    (PIXELS + r'adapter_(\d)\.norm\.', lambda match: f'pixel_decoder.lateral_convs.{int(match[1]) - 1}.gn.'),
    (PIXELS + r'adapter_(\d)\.', lambda match: f'pixel_decoder.lateral_convs.{int(match[1]) - 1}.conv.'),
    (PIXELS + r'layer_(\d)\.norm\.', lambda match: f'pixel_decoder.output_convs.{int(match[1]) - 1}.gn.'),
    (PIXELS + r'layer_(\d)\.', lambda match: f'pixel_decoder.output_convs.{int(match[1]) - 1}.conv.'),
    (PIXELS + r'mask_features\.', r'pixel_decoder.mask_feature.'),
    (QUERIES + r'transformer_self_attention_layers\.(\d)\.self_attn\.', LAYERS + r'\1.self_attn.attn.'),
    (QUERIES + r'transformer_self_attention_layers\.(\d)\.norm\.', LAYERS + r'\1.norms.1.'),
    (QUERIES + r'transformer_cross_attention_layers\.(\d)\.multihead_attn\.', LAYERS + r'\1.cross_attn.attn.'),
    (QUERIES + r'transformer_cross_attention_layers\.(\d)\.norm\.', LAYERS + r'\1.norms.0.'),
    (QUERIES + r'transformer_ffn_layers\.(\d)\.linear1\.', LAYERS + r'\1.ffn.layers.0.0.'),
    (QUERIES + r'transformer_ffn_layers\.(\d)\.linear2\.', LAYERS + r'\1.ffn.layers.1.'),
    (QUERIES + r'transformer_ffn_layers\.(\d)\.norm\.', LAYERS + r'\1.norms.2.'),
    (QUERIES + r'decoder_norm\.', 'transformer_decoder.post_norm.'),
    (QUERIES + r'static_query\.', 'query_feat.'),
    (QUERIES + r'class_embed\.', 'cls_embed.'),
    (QUERIES + r'mask_embed\.layers\.(\d)\.', lambda match: f'mask_embed.{2 * int(match[1])}.'),
    (QUERIES, ''),
)
"""From the names of Mask2Former's own code to those of the head of mmdet and mmseg, which stand below its name."""
MMDET2_RULES = (
    (r'(transformer_decoder\.layers\.\d+)\.attentions\.0\.', r'\1.cross_attn.'),
    (r'(transformer_decoder\.layers\.\d+)\.attentions\.1\.', r'\1.self_attn.'),
    (r'(pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.', r'\1.self_attn.'),
    (r'(layers\.\d+)\.ffns\.0\.', r'\1.ffn.'),
)
"""From mmdet 2, where attentions and feed-forward layers are numbered in the order of their use, to today's names."""


def weights_of(config: str) -> str:
    """Where the weights of a config of this project are: in a file that ships with it, or where its authors host them.

    Raises:
        ValueError: there are none, or the config is not ours.
        CheckpointError: the file that ships is damaged.
    """
    entry = checkpoints.published_for(config)
    if entry and entry.file:
        return str(checkpoints.locate(Path(checkpoints.__file__).parent / entry.file, sha256=entry.sha256))
    if entry is None or entry.url is None:
        raise ValueError(f'{config} has no weights in the catalogue: name a checkpoint')
    return entry.url


def load_checkpoint(
    model: nn.Module,
    source: str | Path | checkpoints.Checkpoint,
    *,
    strict: bool = True,
    other_classes: bool = False,
) -> Coverage:
    """Loads a checkpoint of a whole detector or segmentor, the authors' or ours.

    Args:
        model: what the registry of mmdet or mmseg builds, with a `ZooBackbone`.
        source: anything that `checkpoints.locate` finds.
        strict: refuse a checkpoint that does not cover the model, or that the model does not cover.
        other_classes: accept another number of classes: the layers that tell them apart stay the model's own, with a
            warning.

    Returns:
        What was missing, unexpected or of another shape; all empty when strict.

    Raises:
        CheckpointError: no such checkpoint, not readable, or not covering; the model is unchanged.
    """
    path = checkpoints.locate(source)
    tensors = checkpoints.read_state_dict(path)
    return load_state_dict(model, tensors, strict=strict, other_classes=other_classes, origin=str(path))


def load_state_dict(
    model: Any,
    state_dict: Mapping[str, Tensor],
    *,
    strict: bool = True,
    other_classes: bool = False,
    origin: str = 'state dict',
) -> Coverage:
    """Loads tensors under the authors' or our names. See `load_checkpoint` for errors and result."""
    model = model.module if is_model_wrapper(model) else model
    fitted, wanted = fit(model, state_dict), model.state_dict()
    if other_classes:
        for key in class_layers(wanted, fitted):
            _logger.warning('%s has %d rows, the model %d: its own stay', key, len(fitted[key]), len(wanted[key]))
            fitted[key] = wanted[key]
    covered = checkpoints.coverage(wanted, fitted)
    if strict and not covered.complete:
        raise CheckpointError(
            f'{origin} does not cover {type(model).__name__}; nothing was loaded. Load it with strict=False to accept '
            f'that.\n{covered.report()}'
        )
    wrong = {key for key, *_ in covered.misshapen}
    model.load_state_dict({key: tensor for key, tensor in fitted.items() if key not in wrong}, strict=strict)
    return covered


def fit(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the model's names, those of the backbone in the model's shapes too."""
    names = renamed(model, state_dict)
    given = of_backbone(model, state_dict)
    fitted = {BACKBONE + key: tensor for key, tensor in weights.fit(network_of(model), given).items()}
    # a classifier has no norms of the outputs, so that its `fit` takes them from the model: a detector must have them
    return {key: fitted.get(key, tensor) for key, tensor in names.items()}


def renamed(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the model's names."""
    given = of_backbone(model, state_dict)
    heads = {key: tensor for key, tensor in state_dict.items() if not key.startswith(BACKBONE)}
    inside = {BACKBONE + key: tensor for key, tensor in weights.renamed(network_of(model), given).items()}
    if any(key.startswith('sem_seg_head.') for key in heads):
        head = 'panoptic_head.' if hasattr(model, 'panoptic_head') else 'decode_head.'
        return inside | {head + key: tensor for key, tensor in checkpoints.remap_keys(heads, DETECTRON2_RULES).items()}
    return inside | checkpoints.remap_keys(heads, MMDET2_RULES)


def of_backbone(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the backbone as its family, or timm, names them."""
    given = {key.removeprefix(BACKBONE): t for key, t in state_dict.items() if key.startswith(BACKBONE)}
    return timm_models.renamed(network_of(model), given)


def network_of(model: Any) -> nn.Module:
    """The backbone whose names a checkpoint has below `backbone.`."""
    return getattr(model.backbone, 'network', model.backbone)


def class_layers(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The tensors outside the backbone that differ in the number of their rows alone."""
    shared = [key for key in wanted if key in given and not key.startswith(BACKBONE)]
    return [
        key
        for key in shared
        if given[key].shape != wanted[key].shape and given[key].shape[1:] == wanted[key].shape[1:] and given[key].ndim
    ]
