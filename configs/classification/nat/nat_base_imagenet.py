_base_ = 'nat_mini_imagenet.py'
model = dict(name='nat_base', drop_path_rate=0.5)
