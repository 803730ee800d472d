# A small run: 16 images learnt by heart, from our weights of CIFAR-10; half the channels of the usual heads
_base_ = [
    '../../_base_/detection/models/mask_rcnn.py',
    '../../_base_/detection/datasets/coco16.py',
    '../../_base_/detection/schedules/short.py',
    '../../_base_/detection/runtime.py',
]
dim = 128
model = dict(
    backbone=dict(name='nat_pico', stem_strides=(2, 2), out_norms=True, out_indices=(0, 1, 2)),
    neck=dict(in_channels=[64, 128, 256], out_channels=dim, add_extra_convs='on_output'),
    rpn_head=dict(in_channels=dim, feat_channels=dim),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=dim),
        bbox_head=dict(in_channels=dim, fc_out_channels=512),
        mask_roi_extractor=dict(out_channels=dim),
        mask_head=dict(num_convs=2, in_channels=dim, conv_out_channels=dim),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=300), rcnn=dict(sampler=dict(num=64))),
)
