_base_ = '../../_base_/detection/cascade_mask_rcnn_3x.py'
model = dict(
    backbone=dict(
        name='dinat_s_large_21k',
        out_norms=True,
        drop_path_rate=0.6,
        dilations=[[1, 28], [1, 14], 3 * [1, 3, 1, 5, 1, 7], [1, 3]],
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(type='MixedPrecision', dtype='float16', optimizer=dict(lr=5e-5))
