_base_ = '../../_base_/detection/retinanet_1x_plain.py'
model = dict(
    backbone=dict(name='pvt_tiny', class_token=False, drop_path_rate=0.1), neck=dict(in_channels=[64, 128, 320, 512])
)
