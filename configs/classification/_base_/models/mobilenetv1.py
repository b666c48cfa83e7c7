# MobileNetV1, which MMPretrain does not have.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ckd_mmdet.MobileNetV1'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=1024, topk=(1, 5),
              loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
