"""Networks and dense backbones: from a reference's name to a model of ours that has loaded the authors' keys.

Letters: B batch, C channels, H W height and width.
"""

import contextlib
import dataclasses
import math
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

import checkpoints
import zoo
from zoo.golden import rule
from zoo.golden.reference import Comparison, Reference, Result, Unmapped

WRAPPERS = ('model', 'state_dict', None)  # how authors save a state dict; the last is flat


def pick(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The arguments of the authors' constructor that ours shares, where they are given."""
    return lambda arguments: {name: arguments[name] for name in names if name in arguments}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What of ours answers to the references whose name matches a pattern.

    Args:
        pattern: regular expression of the whole name.
        model: our model's name, as a replacement of the pattern. `zoo_` may be left out, and an ending after an
            underscore that no model of ours has (the size of the image) is ignored.
        arguments: the authors' arguments -> ours, beyond those that our model's name implies.
    """

    pattern: str
    model: str = r'\g<0>'
    arguments: Callable[[dict[str, Any]], dict[str, Any]] = pick()


def dense_focalnet(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of FocalNet's dense code, whose overlapping stem pads one pixel more than the classifier's."""
    ours = pick('embed_dim', 'depths', 'focal_levels', 'focal_windows', 'use_conv_embed')(arguments)
    return dict(ours, stem_padding=3, layer_scale=1e-4 if arguments.get('use_layerscale') else None)


def dense_agent(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of Agent Attention's dense code, which has more agents than the biases are made for."""
    return dict(agent_shapes=arguments['downstream_agent_shapes'])


ADAPTERS = (
    Adapter(r'(di)?nat_.*', arguments=pick('dilations')),
    Adapter(r'biformer_.*', arguments=pick('n_win')),
    Adapter(r'litv2_[smb]_(det|seg).*', arguments=pick('local_ws')),
    Adapter(r'proxy_(.*)_dim32', r'zoo_focalnet_\1', arguments=pick('embed_dim', 'depths')),
    Adapter(r'dense_focalnet_conv_embed_dim32', 'zoo_focalnet_tiny_srf', arguments=dense_focalnet),
    Adapter(r'dense_(focalnet_.*)', r'\1', arguments=dense_focalnet),
    *(
        Adapter(f'dense_{family}_{size[0]}.*', f'{family}_{size}_224', arguments)
        for family, arguments in (('agent_pvt', dense_agent), ('agent_swin', dense_agent), ('cswin', pick('num_heads')))
        for size in ('tiny', 'small', 'medium', 'base', 'large')
    ),
    Adapter(r'dense_(pvt_.*)', r'\1', arguments=lambda arguments: dict(class_token=False)),
    Adapter(r'dense_(.*)', r'\1'),
    # A dot would begin the name of a checkpoint in timm.
    Adapter(r'(.*)\.(.*)', r'\1\2'),
    Adapter(r'.*'),
)


def resolve(reference: Reference) -> tuple[Adapter, str]:
    """The adapter and the name of our model for a network or dense backbone.

    Raises:
        Unmapped: no model of ours has that name.
    """
    title, ours = reference.config['model'], set(zoo.list_models())
    adapter = next(adapter for adapter in ADAPTERS if re.fullmatch(adapter.pattern, title))
    words = re.sub(f'^(?:{adapter.pattern})$', adapter.model, title).split('_')
    for end in range(len(words), 0, -1):
        name = '_'.join(words[:end])
        for candidate in (name, f'zoo_{name}'):
            if candidate in ours:
                return adapter, candidate
    raise Unmapped(f'no model of ours is called {"_".join(words)} or zoo_{"_".join(words)}')


def create(reference: Reference, **options: Any) -> nn.Module:
    """Our model for a reference, as a user creates it."""
    adapter, name = resolve(reference)
    return timm.create_model(name, **adapter.arguments(reference.arguments), **options)


def check_keys(reference: Reference, device: torch.device) -> Result:
    """Names, shapes and number of the parameters; nothing is computed."""
    model = create(reference, num_classes=classes(reference), device='meta')
    count = sum(parameter.numel() for parameter in model.parameters())
    complaints = key_complaints(reference, model)
    return [
        Comparison('keys', len(complaints), 0, '; '.join(complaints[:4])),
        Comparison('parameters', abs(count - reference.config['params']), 0, f'ours has {count:,} parameters'),
    ], count


def key_complaints(reference: Reference, model: nn.Module) -> list[str]:
    """What keeps the key rules from being one to one, from the authors' entries to ours, and neutral to ours."""
    theirs, ours = reference.config['keys'], model.state_dict()
    origin: dict[str, str] = {}
    complaints = []
    for key, shape in theirs.items():
        to = place(key, model)
        if to is None:
            if not reference.kept(key):
                complaints.append(f'{key} is dropped')
        elif to not in ours:
            complaints.append(f'{key} becomes {to}, which ours lacks')
        elif to in origin:
            complaints.append(f'{origin[to]} and {key} both become {to}')
        elif math.prod(shape) != ours[to].numel():
            complaints.append(f'{key} {shape} becomes {to} {list(ours[to].shape)}')
        origin[to or ''] = key
    complaints += [f'ours has {key}, which nothing fills' for key in ours if key not in origin]
    return complaints + [f'our own {key} is renamed to {to}' for key in ours if (to := place(key, model)) != key]


def check_network(reference: Reference, device: torch.device) -> Result:
    """Keys, then logits and features of the model that timm builds from a file with the authors' state dict."""
    comparisons, count = check_keys(reference, device)
    if not all(comparison.agrees for comparison in comparisons):
        return comparisons, count
    options = dict(num_classes=classes(reference))
    with saved(reference, authors_state_dict(reference, options)) as file:
        overlay = dict(options, file=str(file))
        model = create(reference, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    return [*comparisons, *compare_outputs(reference, model.to(device).eval(), device)], count


@torch.no_grad()
def compare_outputs(reference: Reference, model: nn.Module, device: torch.device) -> Iterator[Comparison]:
    """Logits, the input of the classifier and the feature maps, as far as the reference has them."""
    arrays, config = reference.arrays, reference.config
    x = rule.images(config['input']).to(device)
    logits = model(x)
    for name in ('logits', 'logits_f64'):
        if name in arrays:
            yield arrays.compare(name, logits, config['f32_noise'])
    final, maps = model.forward_intermediates(x)  # type: ignore[operator]
    if 'pre_logits' in arrays:
        yield arrays.compare('pre_logits', model.forward_head(final, pre_logits=True), None)  # type: ignore[operator]
    if arrays.features == len(maps) + 1:  # the first is the stem's
        maps = [model.stem(x), *maps]  # type: ignore[operator]
    yield from compare_maps(reference, ends(maps, arrays.features))


def compare_maps(reference: Reference, maps: list[Tensor]) -> Iterator[Comparison]:
    """Feature maps (B, C, H, W) against feat0, feat1, ..."""
    noises = feature_noises(reference.config)
    for level, feature in enumerate(maps):
        yield reference.arrays.compare(f'feat{level}', feature, noises[level] if noises else None)


def feature_noises(config: dict[str, Any]) -> list[float] | None:
    """Noise of each feature map, where it was recorded."""
    noises = config.get('f32_noise_feats') or config.get('f32_noise')
    return noises if isinstance(noises, list) else None


def ends(maps: list[Tensor], count: int) -> list[Tensor]:
    """The `count` maps of the reference: the last ones, or evenly spaced ones if all our blocks are of one shape."""
    if len(maps) < count:
        raise ValueError(f'ours gives {len(maps)} feature maps, the reference has {count}')
    if len({feature.shape for feature in maps}) == 1:
        return [maps[(i + 1) * len(maps) // count - 1] for i in range(count)]
    return maps[len(maps) - count :]


@torch.no_grad()
def check_dense(reference: Reference, device: torch.device) -> Result:
    """The levels of a detection or segmentation backbone, as `features_only` gives them."""
    plan = create(reference, device='meta')
    places = [place(key, plan) or '' for key in reference.config['keys']]
    levels = sorted({int(key.split('.')[1]) for key in places if key.startswith('out_norms.')})
    options: dict[str, Any] = dict(features_only=True, out_norms=levels)
    with saved(reference, authors_state_dict(reference, dict(out_norms=levels))) as file:
        model = create(reference, pretrained=True, pretrained_cfg_overlay=dict(file=str(file)), **options).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    complaints = key_complaints(reference, cast(nn.Module, model.model))
    comparisons = [
        Comparison('keys', len(complaints), 0, '; '.join(complaints[:4])),
        Comparison('parameters', abs(count - reference.config['params']), 0, f'ours has {count:,} parameters'),
    ]
    maps = model.to(device)(rule.images(reference.config['input']).to(device))
    return [*comparisons, *compare_maps(reference, ends(maps, reference.arrays.features))], count


def classes(reference: Reference) -> int:
    """Size of the classifier."""
    if reference.numbers is not None:
        return reference.arrays.shape('logits')[1]
    return reference.arguments.get('num_classes') or next(reversed(reference.config['keys'].values()))[0]


def place(key: str, model: nn.Module) -> str | None:
    """One of the authors' keys -> ours, None where a rule drops it."""
    return next(iter(checkpoints.remap_keys({key: torch.empty(0)}, getattr(model, 'key_rules', ()))), None)


def authors_state_dict(reference: Reference, options: dict[str, Any]) -> dict[str, Tensor]:
    """The authors' state dict under the rule; buffers that keep their value have the one that our model gives them."""
    config, keys = reference.config, reference.config['keys']
    kept = {key: torch.zeros(keys[key], dtype=torch.int64) for key in keys if reference.kept(key)}
    plan = create(reference, device='meta', **options)
    constructed = {key: to for key in kept if (to := place(key, plan)) and not key.endswith('num_batches_tracked')}
    if constructed:
        ours = create(reference, **options).state_dict()
        kept.update({key: ours[to] for key, to in constructed.items() if to in ours})
    return rule.state_dict(keys, kept, config['scale'], config.get('post_fill', ()))


@contextlib.contextmanager
def saved(reference: Reference, state: dict[str, Tensor]) -> Iterator[Path]:
    """A file with the state dict as authors save it, while the context lasts; the wrapper follows from the name."""
    wrapper = WRAPPERS[zlib.crc32(reference.title.encode()) % len(WRAPPERS)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'authors.pth')
        torch.save({wrapper: state} if wrapper else state, file)
        yield file
