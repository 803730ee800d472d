"""Augmentation of a whole batch of small images with a few vectorised tensor operations, on the batch's device.

The random numbers are torch's global ones, which the training loop seeds anew before each iteration.
Letters: B batch, C channels, H height, W width.
"""

import torch
from mmengine.registry import TRANSFORMS
from torch import Tensor


@TRANSFORMS.register_module()
class BatchCropFlip:
    """(B, C, H, W) -> (B, C, H, W) of any dtype: shifted by at most `shift` pixels, mirrored at random.

    What a shift uncovers is filled by reflection. Both are one gather, so nothing is padded or copied twice.

    Args:
        shift: largest shift in pixels, in each direction of both axes.
        flip: probability of a horizontal mirror image.
    """

    def __init__(self, shift: int = 4, flip: float = 0.5) -> None:
        self.shift, self.flip = shift, flip

    def __call__(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        rows = self.positions(batch, height, images.device)
        columns = self.positions(batch, width, images.device)
        mirrored = torch.rand(batch, 1, device=images.device) < self.flip
        columns = torch.where(mirrored, columns.flip(1), columns)
        pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, HW)
        return images.flatten(2).gather(2, pixels[:, None].expand(-1, channels, -1)).view_as(images)

    def positions(self, batch: int, size: int, device: torch.device) -> Tensor:
        """(B, size) source positions of one axis, reflected at the borders."""
        shift = torch.randint(-self.shift, self.shift + 1, (batch, 1), device=device)
        last = size - 1
        return last - (last - (torch.arange(size, device=device) + shift).abs()).abs()


@TRANSFORMS.register_module()
class BatchErase:
    """(B, C, H, W) -> (B, C, H, W): a square of `size` pixels, centred anywhere, is set to zero (Cutout).

    Papers: https://arxiv.org/abs/1708.04552

    Args:
        size: side of the square in pixels; the part outside the image is lost.
        probability: share of the images that lose a square.
    """

    def __init__(self, size: int = 8, probability: float = 0.5) -> None:
        self.size, self.probability = size, probability

    def __call__(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        erased = torch.rand(batch, 1, device=images.device) < self.probability
        rows, columns = (self.span(batch, size, images.device) for size in (height, width))
        return images.masked_fill(((rows & erased)[:, :, None] & columns[:, None, :])[:, None], 0)

    def span(self, batch: int, size: int, device: torch.device) -> Tensor:
        """(B, size) bool: the positions of one axis that lie in the square."""
        start = torch.randint(0, size, (batch, 1), device=device) - self.size // 2
        positions = torch.arange(size, device=device)
        return (positions >= start) & (positions < start + self.size)


@TRANSFORMS.register_module()
class BatchJitter:
    """(B, C, H, W) -> (B, C, H, W) float: brightness, contrast and saturation, each scaled by 1 +- `strength`.

    Values stay in the range 0 to 255.
    """

    def __init__(self, strength: float = 0.2) -> None:
        self.strength = strength

    def __call__(self, images: Tensor) -> Tensor:
        images = images.float()
        brightness, contrast, saturation = self.factors(images), self.factors(images), self.factors(images)
        images = images * brightness
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + (images - mean) * contrast
        grey = images.mean(1, keepdim=True)
        return (grey + (images - grey) * saturation).clamp(0, 255)

    def factors(self, images: Tensor) -> Tensor:
        """(B, 1, 1, 1) random factors around one."""
        return 1 + self.strength * (2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1)
