_base_ = 'mixer_tiny_imagenet.py'
model = dict(name='mixer_base', drop_path_rate=0.5)
