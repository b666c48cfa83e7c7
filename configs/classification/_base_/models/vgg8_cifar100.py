_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarVGG', depth=8), head=dict(in_channels=512))
