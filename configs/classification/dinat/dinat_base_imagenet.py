_base_ = 'dinat_mini_imagenet.py'
model = dict(name='dinat_base', drop_path_rate=0.5)
