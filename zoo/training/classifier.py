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

import zoo  # noqa: F401  registers our models in timm

LOSSES = {
    'cross_entropy': nn.CrossEntropyLoss,
    'label_smoothing': LabelSmoothingCrossEntropy,
    'soft_target': SoftTargetCrossEntropy,
    'binary': BinaryCrossEntropy,
}


@MODELS.register_module()
class Classifier(BaseModel):
    """(B, 3, H, W) -> (B, K), as `timm.create_model(name, **kwargs)`.

    Args:
        name: model name.
        loss: a name in `LOSSES` as `type`, with the arguments of that loss. Images that were mixed need
            `soft_target` or `binary`.
        channels_last: memory format of images and convolutions.
        data_preprocessor: config of the preprocessor.
    """

    def __init__(
        self,
        name: str,
        loss: dict | None = None,
        channels_last: bool = False,
        data_preprocessor: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_preprocessor or {'type': 'ImagePreprocessor'})
        if not timm.is_model(name.partition('.')[0]):
            raise ValueError(f'unknown model {name!r}: neither the zoo nor timm has it')
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = timm.create_model(name, **kwargs).to(memory_format=self.format)
        self.name = name
        loss = dict(loss or {'type': 'cross_entropy'})
        kind = loss.pop('type')
        if kind not in LOSSES:
            raise ValueError(f'unknown loss {kind!r}: one of {sorted(LOSSES)}')
        self.loss = LOSSES[kind](**loss)

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor') -> Any:
        logits = self.model(inputs.contiguous(memory_format=self.format))
        if mode == 'loss':
            return {'loss': self.loss(logits.float(), labels)}
        return [{'logits': logits.float(), 'labels': labels}] if mode == 'predict' else logits

    def init_weights(self) -> None:
        """Nothing: timm has initialised the model, and mmengine would do it again over pretrained weights."""
