# CKD under the budget of its baselines, half of the released; not run.
_base_ = ['../baselines/shufflev2_240e_cifar100.py']
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/resnet32x4_240e_cifar100.py',
                 checkpoint='checkpoints/cifar100/resnet32x4_vanilla/ckpt_epoch_240.pth'),
    alignments=dict(
        image=dict(
            aligner=dict(type='ckd_mmdet.ImageAligner'),
            losses=dict(loss_ckd=dict(type='ckd_mmdet.CKDLoss', temperature=1.0, loss_weight=100.0)))))
