# HandwrittenDigits, which need no download: turned, noisy, and few of them with a label. The teacher has all labels.
data_preprocessor = dict(num_classes=10, mean=[87.3] * 3, std=[87.3] * 3, to_rgb=False)
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),  # no flip: a mirrored digit is another sign
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=20, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ckd_mmdet.HandwrittenDigits', split='train', images_per_class=20, rotation=30.0, noise=60.0,
                 pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=100, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ckd_mmdet.HandwrittenDigits', split='test', rotation=30.0, noise=60.0,
                 pipeline=[dict(type='PackInputs')]))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
