# 256 images a step, as 4 processes of 64; momentum without Nesterov, decay of every parameter, a tenth every 30 epochs
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TimmOptimizer',
    optimizer=dict(opt='momentum', lr=0.1, weight_decay=1e-4, filter_bias_and_bn=False),
)
param_scheduler = [dict(type='StepLR', step_size=30, gamma=0.1)]
auto_scale_lr = dict(base_batch_size=256, enable=False)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=100, val_interval=1)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='Accuracy')
