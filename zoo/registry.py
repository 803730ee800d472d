"""A table of variants becomes models of timm: entry points, default configurations and pretrained weights."""

from __future__ import annotations

import contextlib
import fnmatch
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, is_model, register_model
from timm.models._builder import resolve_pretrained_cfg
from torch import nn

import checkpoints
from zoo.skeleton import Backbone, KeyRules, ValueRules
from zoo.weights import accept_backbone_keys, load_pretrained

_registered: dict[str, str] = {}


def register_family(
    module_name: str,
    cls: type[Backbone],
    variants: Mapping[str, Mapping[str, Any]],
    key_rules: KeyRules,
    value_rules: ValueRules = (),
    out_indices: Sequence[int] | None = None,
) -> None:
    """Registers every variant in timm, with the checkpoints of the catalogue of the same name as the module.

    A module calls it once per class: variants whose authors name their keys differently have classes of their own.

    Args:
        module_name: `__name__` of the family's file.
        cls: built as `cls(**variant, **what the user asked for)`.
        variants: timm name -> arguments of `cls`.
        key_rules: the authors' keys -> ours.
        value_rules: key pattern -> how a tensor of another size becomes one of ours.
        out_indices: features of `features_only` unless the user names others, all when None.

    Raises:
        ValueError: a name is taken.
    """
    module, family = sys.modules[module_name], module_name.rsplit('.', 1)[-1]
    catalogue = checkpoints.catalogue(family) if family in checkpoints.families() else {}
    if taken := [name for name in variants if is_model(name)]:
        raise ValueError(f'the model names {taken} of {module_name} are taken: choose others')
    cls.key_rules, cls.value_rules = key_rules, value_rules
    cfgs: dict[str, dict[str, Any] | PretrainedCfg] = {}
    for name, arguments in variants.items():
        entries = catalogue.get(name, {})
        cfgs.update({f'{name}.{tag}': pretrained_cfg(cls, arguments, entry) for tag, entry in entries.items()})
        if not entries:
            cfgs[f'{name}.untrained'] = pretrained_cfg(cls, arguments, None)
    module.default_cfgs = {**getattr(module, 'default_cfgs', {}), **generate_default_cfgs(cfgs)}  # type: ignore[attr-defined]
    for name, arguments in variants.items():
        setattr(module, name, register_model(_entry_point(name, module_name, cls, arguments, out_indices)))
        _registered[name] = family


def check_catalogue(family: str) -> None:
    """To be called when the family has registered its models.

    Raises:
        ValueError: its catalogue holds a model that is not among them.
    """
    if strangers := sorted(name for name in checkpoints.catalogue(family) if _registered.get(name) != family):
        raise ValueError(f'checkpoints/{family}.toml names models that zoo/families/{family}.py lacks: {strangers}')


def list_models(pattern: str = '*') -> list[str]:
    """Names of this project's models that match a shell pattern, in order of registration."""
    return fnmatch.filter(_registered, pattern)


def family_of(model_name: str) -> str:
    """Family (file of `zoo/families`, catalogue of `checkpoints`) of one of this project's models."""
    return _registered[model_name]


def pretrained_cfg(
    cls: type[Backbone], variant: Mapping[str, Any], entry: checkpoints.Checkpoint | None
) -> dict[str, Any]:
    """What timm wants to know of one checkpoint of a variant, or of the untrained variant when None."""
    side = variant.get('img_size', 224)
    cfg: dict[str, Any] = dict(input_size=(3, side, side), first_conv=cls.first_conv, classifier='head.fc')
    if entry is not None:
        cfg.update(
            url=entry.url,
            file=str(entry.local_file) if entry.file else None,
            hf_hub_id=entry.hf_hub_id,
            num_classes=entry.num_classes,
            input_size=entry.input_size,
            crop_pct=entry.crop_pct,
            crop_mode=entry.crop_mode,
            interpolation=entry.interpolation,
            mean=entry.mean,
            std=entry.std,
            label_names=entry.labels or None,
            license=entry.license,
            origin_url=entry.code,
            paper_ids=entry.paper,
        )
    stride = cls.output_stride(**variant)
    cfg['pool_size'] = tuple(-(-side // stride) for side in cfg['input_size'][1:])
    return {key: value for key, value in cfg.items() if value is not None}


def _entry_point(
    name: str, module_name: str, cls: type[Backbone], variant: Mapping[str, Any], out_indices: Sequence[int] | None
) -> Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        cfg = resolve_pretrained_cfg(
            name, kwargs.pop('pretrained_cfg', None), kwargs.pop('pretrained_cfg_overlay', None)
        )
        strict = kwargs.pop('pretrained_strict', True)
        stride = None if cls.dilates else kwargs.pop('output_stride', None)
        # Features stand before these; a dense model's checkpoint has none.
        unneeded = ('norm', 'head') if kwargs.get('features_only') else ()
        keys: set[str] = set()

        def build(device: Any = None, dtype: torch.dtype | None = None, **arguments: Any) -> Backbone:
            with _factory(device, dtype):
                model = cls(**{**variant, **arguments})
            if pretrained:
                load_pretrained(model, cfg, strict=strict, unneeded=unneeded)
            keys.update(model.state_dict())
            return model

        features = dict(feature_cls='getter', out_indices=out_indices)
        model = build_model_with_cfg(build, name, False, pretrained_cfg=cfg.to_dict(), feature_cfg=features, **kwargs)
        reductions = [info['reduction'] for info in model.feature_info]
        if not isinstance(model, Backbone):
            accept_backbone_keys(model, keys)
            reductions = model.feature_info.reduction()
        if stride is not None and max(reductions) > stride:
            raise ValueError(
                f'{name} has no output_stride {stride}: its stages are not dilated. Leave out the maps of more than '
                f'{stride} pixels per position, or give them as they are with output_stride={max(reductions)}'
            )
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = module_name
    entry.__doc__ = f'{cls.__name__} with {dict(variant)}.'
    return entry


@contextlib.contextmanager
def _factory(device: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """Everything made inside lies on the device in the type, whatever its constructor takes."""
    before = torch.get_default_dtype()
    with torch.device(device) if device is not None else contextlib.nullcontext():
        torch.set_default_dtype(dtype or before)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
