_base_ = 'coco_boxes.py'
masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
train_dataloader = dict(dataset=dict(pipeline=[_base_.load, masks, _base_.resize, _base_.flip, _base_.pack]))
val_dataloader = dict(dataset=dict(pipeline=[_base_.load, _base_.resize, masks, _base_.pack_test]))
test_dataloader = dict(dataset=dict(pipeline=[_base_.load, _base_.resize, masks, _base_.pack_test]))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = dict(metric=['bbox', 'segm'])
