_base_ = 'biformer_tiny_imagenet.py'
model = dict(name='biformer_small', drop_path_rate=0.15)
