_base_ = '1x.py'
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    optimizer=dict(weight_decay=1e-4),
    paramwise_cfg=dict(_delete_=True),
)
