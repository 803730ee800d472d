_base_ = '../../_base_/imagenet_finetune_384.py'
model = dict(
    name='dinat_large_384_11x11',
    drop_path_rate=0.35,
    init='https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_large_in22k_224_11x11interp.pth',
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-10))
