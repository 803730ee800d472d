_base_ = [
    '../../_base_/datasets/imagenet.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/runtime/default.py',
]
model = dict(name='dinat_s_tiny', drop_path_rate=0.2)
