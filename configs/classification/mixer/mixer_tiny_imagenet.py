# ours: the numbers of NAT
_base_ = '../../_base_/imagenet_300e.py'
model = dict(name='mixer_tiny', drop_path_rate=0.2)
