# 512 images a step, as 8 processes of 64; a new classifier learns at 2.5e-4, no parameter is exempt from the decay
_base_ = 'cswin_tiny_224_imagenet.py'
train_dataloader = dict(batch_size=64)
model = dict(
    name='cswin_large_224',
    drop_path_rate=0.2,
    init='cswin_large_224.microsoft_in22k',
    data_preprocessor=dict(mixup=dict(mixup_alpha=0.01, cutmix_alpha=0.3)),
)
optim_wrapper = dict(
    optimizer=dict(lr=1.25e-5, weight_decay=1e-8, filter_bias_and_bn=False),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=20)}),
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=30, eta_min=5e-7, end=30, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=512)
train_cfg = dict(max_epochs=40)
custom_hooks = [dict(type='WeightAverage', momentum=0.0004)]
