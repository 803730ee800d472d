"""From a checkpoint, wherever it lies and whatever its keys are called, to a model: whole or not at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg, adapt_input_conv
from torch import Tensor, nn

import checkpoints
from checkpoints import CheckpointError, Coverage

_logger = logging.getLogger('zoo')


def load_checkpoint(
    model: nn.Module, source: str | Path | checkpoints.Checkpoint, *, strict: bool = True, use_ema: bool = True
) -> Coverage:
    """Loads a checkpoint of the authors, of timm or of ours into a classifier of ours or of timm.

    Keys are renamed and position tables, first convolution and classifier are fitted as `fit` says.

    Args:
        model: what `timm.create_model` gives.
        source: anything that `checkpoints.locate` finds: a file, a url, 'hf-hub:owner/name', an entry of the catalogue.
        strict: refuse a checkpoint that does not cover the model, or that the model does not cover.
        use_ema: take the averaged weights where the file holds both.

    Returns:
        What was missing, unexpected or of another shape; all empty when strict.

    Raises:
        CheckpointError: no such checkpoint, not readable, or not covering; the model is unchanged.
    """
    path = checkpoints.locate(source)
    return load_state_dict(model, checkpoints.read_state_dict(path, use_ema=use_ema), strict=strict, origin=str(path))


def load_pretrained(
    model: nn.Module, cfg: PretrainedCfg, *, strict: bool = True, unneeded: Collection[str] = ()
) -> Coverage:
    """Loads what timm's configuration points to; its order: `state_dict`, `file`, `hf_hub_id`, `url`.

    Args:
        model: as for `load_checkpoint`.
        cfg: timm's configuration.
        strict: as for `load_checkpoint`.
        unneeded: children of the model that the checkpoint may leave out.

    Raises:
        CheckpointError: as `load_checkpoint`, or the configuration names no weights.
    """
    names = dict(first_conv=cfg.first_conv, classifier=cfg.classifier, unneeded=unneeded)
    if cfg.state_dict:
        return load_state_dict(model, cfg.state_dict, strict=strict, origin='pretrained_cfg.state_dict', **names)
    source = _source_of(cfg)
    if source is None:
        raise CheckpointError(
            f'{cfg.architecture} has no pretrained weights in the catalogue: create it with pretrained=False, or name '
            "a file with pretrained_cfg_overlay=dict(file='...')"
        )
    path = checkpoints.locate(source)
    return load_state_dict(model, checkpoints.read_state_dict(path), strict=strict, origin=str(path), **names)


def load_state_dict(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True, origin: str = 'state dict', **names: Any
) -> Coverage:
    """Loads tensors under the authors' or our names, after `fit`. See `load_checkpoint` for errors and result."""
    fitted = fit(model, state_dict, **names)
    covered = checkpoints.coverage(model.state_dict(), fitted)
    if strict and not covered.complete:
        raise CheckpointError(
            f'{origin} does not cover {type(model).__name__}; nothing was loaded. Load it with strict=False to accept '
            f'that.\n{covered.report()}'
        )
    wrong = {key for key, *_ in covered.misshapen}
    model.load_state_dict({k: v for k, v in fitted.items() if k not in wrong}, strict=strict)
    return covered


def fit(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    first_conv: str | None = None,
    classifier: str | None = None,
    unneeded: Collection[str] = (),
) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the model's names and, where that is meant to be, in the model's shapes.

    Position tables of another window or resolution are resized by the family's `value_rules`, or by `fit` of the module
    that holds them; a first convolution of another number of channels is summed or repeated as timm does; a classifier
    is left out where the model has none, and replaced by the model's own, with a warning, where the number of classes
    differs. The norms of features stay as they are where the checkpoint is a classifier's, and so do the children named
    in `unneeded` that it leaves out, and the counters of batch norms that an old file lacks. Nothing else is changed.
    """
    cfg = getattr(model, 'pretrained_cfg', None) or {}
    first_conv = first_conv or cfg.get('first_conv')
    classifier = classifier or cfg.get('classifier')
    wanted = model.state_dict()
    given = renamed(model, state_dict)
    for key, tensor in list(given.items()):
        if key not in wanted or tensor.shape == wanted[key].shape:
            continue
        own: Any = getattr(model.get_submodule(key.rpartition('.')[0]), 'fit', None)
        if own is not None:
            given[key] = own(key, tensor)
        for pattern, resize in getattr(model, 'value_rules', ()):
            if re.search(pattern, key):
                given[key] = resize(tensor, wanted[key].shape)
        if given[key] is not tensor:
            _logger.info('resized %s from %s to %s', key, tuple(tensor.shape), tuple(given[key].shape))
    conv = f'{first_conv}.weight'
    if conv in given and conv in wanted and given[conv].shape[1] == 3 != wanted[conv].shape[1]:
        given[conv] = adapt_input_conv(wanted[conv].shape[1], given[conv])
    for part in ('weight', 'bias'):
        key = f'{classifier}.{part}'
        if key not in given:
            continue
        if key not in wanted:
            if getattr(model, 'num_classes', None) == 0:
                del given[key]
        elif given[key].shape[1:] == wanted[key].shape[1:] and given[key].shape[0] != wanted[key].shape[0]:
            _logger.warning('%s has %d classes, the model %d: its own stays', key, len(given[key]), len(wanted[key]))
            given[key] = wanted[key]
    fresh = (*unneeded, 'out_norms')
    absent = {name for name in fresh if not any(key.startswith(f'{name}.') for key in given)}
    given.update({key: tensor for key, tensor in wanted.items() if key.partition('.')[0] in absent})
    for key in wanted.keys() - given.keys():
        # Before torch 0.4.1 batch norms did not count their batches.
        if key.endswith('num_batches_tracked') and key.replace('num_batches_tracked', 'running_mean') in given:
            given[key] = wanted[key]
    return given


def translated(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint in torch's layout, as the model's family reads them."""
    return dict(getattr(model, 'translate', dict)(state_dict))


def renamed(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint in torch's layout under the model's names."""
    return checkpoints.remap_keys(translated(model, state_dict), getattr(model, 'key_rules', ()))


def rename_foreign_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `load_state_dict`: the authors' names below `prefix` become ours, in place."""
    ours = {key[len(prefix) :]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
    ours = checkpoints.remap_keys(ours, module.key_rules)  # type: ignore[arg-type]
    state_dict.update({prefix + key: value for key, value in ours.items()})


def accept_backbone_keys(features: nn.Module, backbone_keys: Collection[str]) -> None:
    """Lets timm's `features_only` wrapper load a checkpoint of the whole backbone, under the authors' or our names.

    What was pruned from the backbone is left out; anything else that does not fit stays an error.
    """
    pruned = {f'model.{key}' for key in backbone_keys} - set(features.state_dict())

    def hook(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        inner = f'{prefix}model.'
        if not any(key.startswith(inner) for key in state_dict):
            for key in [key for key in state_dict if key.startswith(prefix)]:
                state_dict[inner + key[len(prefix) :]] = state_dict.pop(key)
        rename_foreign_keys(module.model, state_dict, inner)  # type: ignore[arg-type]
        for key in pruned:
            state_dict.pop(prefix + key, None)

    features.register_load_state_dict_pre_hook(hook)


def _source_of(cfg: PretrainedCfg) -> str | checkpoints.Checkpoint | None:
    for family in checkpoints.families():
        entry = checkpoints.catalogue(family).get(cfg.architecture or '', {}).get(cfg.tag or '')
        # An entry of the catalogue knows size and hash; what the user put over it does not.
        if entry is not None and (str(entry.local_file) == cfg.file if cfg.file else entry.url == cfg.url is not None):
            return entry
    if cfg.file:
        return cfg.file
    return f'hf-hub:{cfg.hf_hub_id}' if cfg.hf_hub_id else str(cfg.url) if cfg.url else None
