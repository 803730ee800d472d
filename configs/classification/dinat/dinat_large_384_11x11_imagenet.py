_base_ = '../../_base_/imagenet_finetune_384.py'
model = dict(name='dinat_large_384_11x11', drop_path_rate=0.35, init='dinat_large_21k_11x11.shi_in22k')
optim_wrapper = dict(optimizer=dict(weight_decay=1e-10))
