"""Models as work, with random weights."""

from typing import Any

import timm
import torch

import zoo  # noqa: F401  (registers every model)
from zoo.benchmark.checkouts import AUTHORS, import_authors
from zoo.benchmark.names import parse
from zoo.benchmark.operators import counted_macs, learned_by
from zoo.benchmark.work import FORWARD, Setting, Work
from zoo.inference import resize_input

TIMM = 'timm:'


def model_work(candidate: str, side: int, batch: int, mode: str, setting: Setting) -> Work:
    """The work of a model on random square images; in training no gradient of the images is asked for.

    Args:
        candidate: a model of this project or of timm, `timm:NAME` to say so, or `authors:FOLDER:MODULE:FUNCTION`; with
            arguments in parentheses.
        side: of the images in pixels.
        batch: images.
        mode: evaluation mode when 'forward', else training mode.
        setting: where and how.

    Raises:
        ValueError: unknown model, or it cannot take images of this size.
    """
    model = make_model(candidate, side)
    channels = getattr(model, 'pretrained_cfg', {}).get('input_size', (3,))[0]
    macs = counted_macs(model, [channels, side, side], batch)
    model = model.to(**setting.where).train(mode != FORWARD)
    images = torch.randn(batch, channels, side, side, **setting.where)
    work = Work(model, [images], learned_by(model), macs)
    return work.compiled() if setting.compiled else work


def make_model(candidate: str, side: int) -> Any:
    """The model for images of `side` pixels, see `resize_input`."""
    name, arguments = parse(candidate)
    if name.startswith(AUTHORS):
        return import_authors(name)(**arguments)
    name = name.removeprefix(TIMM)
    if not timm.is_model(name):
        raise ValueError(f'unknown model {name!r}')
    model: Any = timm.create_model(name, **arguments)
    if tuple(model.pretrained_cfg['input_size'][1:]) != (side, side):
        resize_input(model, side)
    return model


def own_side(candidate: str) -> int:
    """Pixels per side that a model is made for; 224 where it does not say."""
    name = parse(candidate)[0].removeprefix(TIMM)
    size = timm.models.get_pretrained_cfg_value(name, 'input_size') if timm.is_model(name) else None
    return size[1] if size else 224
