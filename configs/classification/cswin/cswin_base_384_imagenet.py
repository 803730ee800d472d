# 256 images a step, as 8 processes of 32; no parameter is exempt from the decay
_base_ = 'cswin_tiny_224_imagenet.py'
train_dataloader = dict(batch_size=32, dataset=dict(transform=dict(input_size=384)))
val_dataloader = dict(dataset=dict(transform=dict(input_size=384, crop_pct=1.0)))
model = dict(
    name='cswin_base_384',
    drop_path_rate=0.7,
    init='cswin_base_224.microsoft_in1k',
    data_preprocessor=dict(mixup=dict(mixup_alpha=0.1, cutmix_alpha=0.1)),
)
optim_wrapper = dict(optimizer=dict(lr=5e-6, weight_decay=1e-8, filter_bias_and_bn=False))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, eta_min=5e-7, end=20, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=256)
train_cfg = dict(max_epochs=30)
custom_hooks = [dict(type='WeightAverage', momentum=0.0002)]
