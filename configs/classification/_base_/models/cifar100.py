# A classifier of 100 classes around any backbone of the CIFAR zoo; a model says which, and how wide it ends.
model = dict(
    type='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, topk=(1, 5),
              loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
