# paper and options of the authors' code say weight decay 0.05, but an empty keyword in it exempts every parameter
_base_ = '../../_base_/imagenet_swin.py'
model = dict(name='zoo_focalnet_tiny_iso', drop_path_rate=0.2)
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
