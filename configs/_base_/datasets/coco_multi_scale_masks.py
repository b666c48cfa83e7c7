# COCO and its masks with the shortest side from 640 to 800, as released for CKD (arXiv 2404.14109).
_base_ = ['mmdet::_base_/datasets/coco_instance.py']
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomChoiceResize', scales=[(1333, side) for side in range(640, 801, 32)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
# 8 images a step, on one process. On several, give each its share, or the learning rate no longer fits; CKD's
# negatives are then those of the share alone.
train_dataloader = dict(batch_size=8, num_workers=4, sampler=dict(type='InfiniteSampler'),
                        dataset=dict(pipeline=train_pipeline))
