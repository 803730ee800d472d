_base_ = 'upernet_nat_mini_160k.py'
model = dict(backbone=dict(name='nat_tiny', drop_path_rate=0.3))
