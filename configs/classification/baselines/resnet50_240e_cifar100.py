# A teacher, not run: RepDistiller and mdistiller publish its weights, ResNet50_vanilla/ckpt_epoch_240.pth.
_base_ = ['../_base_/models/resnet50_cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_240e.py']
