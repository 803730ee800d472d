_base_ = ['models/mask_rcnn.py', 'datasets/coco_masks_crops.py', 'schedules/3x.py', 'runtime.py']
