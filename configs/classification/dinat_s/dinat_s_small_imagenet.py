_base_ = 'dinat_s_tiny_imagenet.py'
model = dict(name='dinat_s_small', drop_path_rate=0.3)
