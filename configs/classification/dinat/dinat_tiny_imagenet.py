_base_ = 'dinat_mini_imagenet.py'
model = dict(name='dinat_tiny', drop_path_rate=0.2)
