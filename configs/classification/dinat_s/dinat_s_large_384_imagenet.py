_base_ = '../../_base_/imagenet_finetune_384.py'
model = dict(name='dinat_s_large_384', drop_path_rate=0.35, init='dinat_s_large_21k.shi_in22k')
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
