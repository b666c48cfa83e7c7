# The student alone, not run: batch and learning rate of the pairs that it is in.
_base_ = ['../_base_/models/resnet32_cifar100.py', '../_base_/datasets/cifar100.py',
          '../_base_/schedules/cifar100_480e.py']
