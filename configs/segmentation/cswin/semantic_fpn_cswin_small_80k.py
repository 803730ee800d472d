_base_ = 'semantic_fpn_cswin_tiny_80k.py'
model = dict(backbone=dict(name='cswin_small_224', drop_path_rate=0.4))
