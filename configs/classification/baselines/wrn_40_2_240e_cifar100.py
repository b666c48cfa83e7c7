# A teacher, not run: RepDistiller and mdistiller publish its weights, wrn_40_2_vanilla/ckpt_epoch_240.pth.
_base_ = ['../_base_/models/cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
model = dict(backbone=dict(type='ckd_mmdet.CifarWideResNet', depth=40, widen_factor=2, out_indices=(0, 1, 2)),
             head=dict(in_channels=128))  # the head sees the last map, ReviewKD all
