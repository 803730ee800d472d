"""Any timm or zoo model as an mmengine model: loss while training, logits otherwise.

Letters: B batch, H height, W width, K classes.
"""

from typing import Any

import timm
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from zoo.weights import load_checkpoint  # and our models are in timm's registry with that

LOSSES = {
    'cross_entropy': nn.CrossEntropyLoss,
    'label_smoothing': LabelSmoothingCrossEntropy,
    'soft_target': SoftTargetCrossEntropy,
    'binary': BinaryCrossEntropy,
}


@MODELS.register_module()
class Classifier(BaseModel):
    """(B, 3, H, W) -> (B, K), as `timm.create_model(name, **kwargs)`, whose names its checkpoints keep.

    Args:
        name: model name.
        loss: a name in `LOSSES` as `type`, with the arguments of that loss. Images that were mixed need
            `soft_target` or `binary`.
        init: weights to begin with, whatever `checkpoints.locate` finds; their classifier may have other classes.
        channels_last: memory format of images and convolutions.
        compile: run the model through `torch.compile`; the names of its weights stay.
        data_preprocessor: config of the preprocessor.
    """

    def __init__(
        self,
        name: str,
        loss: dict | None = None,
        init: str | None = None,
        channels_last: bool = False,
        compile: bool = False,
        data_preprocessor: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_preprocessor or {'type': 'ImagePreprocessor'})
        if not timm.is_model(name.partition('.')[0]):
            raise ValueError(f'unknown model {name!r}: neither the zoo nor timm has it')
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = timm.create_model(name, **kwargs).to(memory_format=self.format)
        if compile:
            self.model.compile()
        self.name, self.init = name, init
        loss = dict(loss or {'type': 'cross_entropy'})
        kind = loss.pop('type')
        if kind not in LOSSES:
            raise ValueError(f'unknown loss {kind!r}: one of {sorted(LOSSES)}')
        self.loss = LOSSES[kind](**loss)
        self.register_state_dict_post_hook(drop_prefix)
        self.register_load_state_dict_pre_hook(add_prefix)

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor') -> Any:
        logits = self.model(inputs.contiguous(memory_format=self.format))
        if mode == 'loss':
            return {'loss': self.loss(logits.float(), labels)}
        return [{'logits': logits.float(), 'labels': labels}] if mode == 'predict' else logits

    def init_weights(self) -> None:
        """Loads `init`. timm has initialised the rest, which mmengine would do again, over pretrained weights."""
        if self.init:
            load_checkpoint(self.model, self.init)


def drop_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `state_dict`: the weights get the names that they have in timm's model, in place."""
    for key in [key for key in state_dict if key.startswith(f'{prefix}model.')]:
        state_dict[prefix + key.removeprefix(f'{prefix}model.')] = state_dict.pop(key)


def add_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `load_state_dict`, the opposite of `drop_prefix`."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        state_dict[f'{prefix}model.{key.removeprefix(prefix)}'] = state_dict.pop(key)
