_base_ = '../../_base_/imagenet_finetune.py'
model = dict(
    name='dinat_s_large',
    drop_path_rate=0.35,
    init='https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth',
)
