_base_ = ['models/upernet.py', 'datasets/ade20k_640.py', 'schedules/adamw_160k.py', 'runtime.py']
