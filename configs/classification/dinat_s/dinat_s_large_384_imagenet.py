_base_ = [
    '../../_base_/datasets/imagenet_384.py',
    '../../_base_/schedules/adamw_finetune_30e.py',
    '../../_base_/runtime/default.py',
]
model = dict(
    name='dinat_s_large_384',
    drop_path_rate=0.35,
    init='https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth',
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
