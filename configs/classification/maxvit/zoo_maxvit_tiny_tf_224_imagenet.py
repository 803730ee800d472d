# 4,096 images a step, as 32 processes of 128; crops and RandAugment are timm's, theirs are not public
_base_ = '../../_base_/imagenet_300e.py'
train_dataloader = dict(
    dataset=dict(transform=dict(auto_augment='rand-m15-n2', color_jitter=None, interpolation='bicubic'))
)
val_dataloader = dict(dataset=dict(transform=dict(crop_pct=0.95)))
model = dict(
    name='zoo_maxvit_tiny_tf_224',
    drop_path_rate=0.2,
    data_preprocessor=dict(erase=None, mixup=dict(cutmix_alpha=0.0)),
)
optim_wrapper = dict(dtype='bfloat16', optimizer=dict(lr=3e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, end=10000, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-5, end=300, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4096)
train_cfg = dict(max_epochs=300)
custom_hooks = [dict(type='WeightAverage', momentum=0.0001, update_buffers=True)]
