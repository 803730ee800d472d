_base_ = ['models/atss.py', 'datasets/coco_boxes_crops.py', 'schedules/3x.py', 'runtime.py']
