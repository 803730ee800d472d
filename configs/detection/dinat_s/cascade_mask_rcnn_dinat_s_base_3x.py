_base_ = '../../_base_/detection/cascade_mask_rcnn_3x.py'
model = dict(
    backbone=dict(
        name='dinat_s_base',
        out_norms=True,
        drop_path_rate=0.6,
        dilations=[[1, 28], [1, 14], 3 * [1, 3, 1, 5, 1, 7], [1, 3]],
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16', optimizer=dict(lr=7.5e-5))
