# A classifier of ten digits around any backbone of the CIFAR zoo that ends 64 channels wide.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ckd_mmdet.CifarResNet', arch='resnet8'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, topk=(1, 5),
              loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
