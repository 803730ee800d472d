_base_ = '../../_base_/detection/mask_rcnn_1x_plain.py'
model = dict(
    backbone=dict(name='pvt_large', class_token=False, drop_path_rate=0.0), neck=dict(in_channels=[64, 128, 320, 512])
)
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))
train_dataloader = dict(batch_size=1)
