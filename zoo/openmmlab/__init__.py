"""Detection and segmentation with mmdet and mmseg: their operators without a compiler, and our backbones in them.

Importing this package puts `ZooBackbone` into mmengine's root registry, where both libraries find it, and stands in for
mmcv's compiled operators and for panopticapi where there are none. Needs the extra `dense`.
"""

from zoo.openmmlab import backbone, extension, optim, panoptic

extension.install()
panoptic.install()

__all__ = ['backbone', 'extension', 'optim', 'panoptic']
