_base_ = 'upernet_dinat_mini_160k.py'
model = dict(backbone=dict(name='dinat_tiny', drop_path_rate=0.3))
