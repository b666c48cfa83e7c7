# CKD's released settings (arXiv 2404.14109), not run.
_base_ = ['../baselines/vgg8_480e_cifar100.py']
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/vgg13_240e_cifar100.py',
                 checkpoint='checkpoints/cifar100/vgg13_vanilla/ckpt_epoch_240.pth'),
    alignments=dict(
        image=dict(
            aligner=dict(type='ckd_mmdet.ImageAligner'),
            losses=dict(loss_ckd=dict(type='ckd_mmdet.CKDLoss', temperature=1.0, loss_weight=100.0)))))
