"""Before any test imports mmdet or mmseg: what stands in for mmcv's compiled operators, which they import."""

import pytest

pytest.importorskip('mmcv', reason='detection and segmentation need mmcv (the extra [dense])')

import zoo.openmmlab  # noqa: F401
