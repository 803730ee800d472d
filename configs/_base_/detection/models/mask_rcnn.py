_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(backbone=dict(_delete_=True, type='ZooBackbone', pretrained=True, out_indices=(0, 1, 2, 3)))
