_base_ = 'mixer_tiny_imagenet.py'
model = dict(name='mixer_small', drop_path_rate=0.3)
