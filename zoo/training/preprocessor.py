"""From the uint8 batch of a data loader to the float batch of a model: augmentation, normalisation, erasing, mixing.

Letters: B batch, H height, W width, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS, TRANSFORMS
from timm.data import Mixup
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from torch import Tensor


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """`dict(inputs=(B, 3, H, W) uint8, labels=(B,))` -> the same keys on the model's device, ready for the model.

    Everything random runs while training only. `labels` become (B, K) where images are mixed.

    Args:
        mean: of each channel, for values in 0 to 1.
        std: of each channel, for values in 0 to 1.
        augment: configs of transforms of the whole uint8 batch, in their order.
        erase: config of a transform of the normalised batch.
        mixup: arguments of `timm.data.Mixup`.
    """

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        augment: Sequence[dict] = (),
        erase: dict | None = None,
        mixup: dict | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer('scale', 255 * torch.tensor([mean, std]).view(2, 1, -1, 1, 1), persistent=False)
        self.augment = [TRANSFORMS.build(transform) for transform in augment]
        self.erase = TRANSFORMS.build(erase) if erase else None
        self.mixup = Mixup(**mixup) if mixup else None

    def forward(self, data: dict[str, Tensor], training: bool = False) -> dict[str, Any]:
        data = self.cast_data(data)
        images, labels = data['inputs'], data['labels']
        if training:
            for transform in self.augment:
                images = transform(images)
        mean, std = self.scale
        images = (images.float() - mean) / std
        if training and self.erase:
            images = self.erase(images)
        if training and self.mixup:
            images, labels = self.mixup(images, labels)
        return {'inputs': images, 'labels': labels}


@TRANSFORMS.register_module()
class TimmErase:
    """(B, C, H, W) -> (B, C, H, W): timm's random erasing, with its arguments."""

    def __init__(self, probability: float = 0.25, mode: str = 'pixel', **kwargs: Any) -> None:
        self.probability, self.mode, self.kwargs = probability, mode, kwargs

    def __call__(self, images: Tensor) -> Tensor:
        return RandomErasing(self.probability, mode=self.mode, device=images.device, **self.kwargs)(images)
