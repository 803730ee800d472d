_base_ = ['models/semantic_fpn.py', 'datasets/ade20k.py', 'schedules/adamw_80k.py', 'runtime.py']
