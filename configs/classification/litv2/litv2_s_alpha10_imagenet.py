_base_ = 'litv2_s_imagenet.py'
model = dict(name='litv2_s_alpha10', drop_path_rate=0.2)
