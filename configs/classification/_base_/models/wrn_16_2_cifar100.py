_base_ = ['./cifar100.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarWideResNet', depth=16, widen_factor=2, out_indices=(0, 1, 2)),
             head=dict(in_channels=128))  # the head sees the last map, ReviewKD all
