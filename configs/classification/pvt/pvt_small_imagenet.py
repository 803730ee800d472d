_base_ = 'pvt_tiny_imagenet.py'
model = dict(name='pvt_small', drop_path_rate=0.1)
