_base_ = ['models/cascade_mask_rcnn.py', 'datasets/coco_masks_crops.py', 'schedules/1x.py', 'runtime.py']
