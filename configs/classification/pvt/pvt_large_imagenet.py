_base_ = 'pvt_medium_imagenet.py'
model = dict(name='pvt_large', drop_path_rate=0.3)
