# A teacher, not run: RepDistiller and mdistiller publish its weights, wrn_40_2_vanilla/ckpt_epoch_240.pth.
_base_ = ['../_base_/models/wrn_40_2_cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
