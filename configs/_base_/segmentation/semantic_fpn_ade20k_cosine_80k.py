_base_ = ['models/semantic_fpn.py', 'datasets/ade20k_aligned.py', 'schedules/adamw_cosine_80k.py', 'runtime.py']
