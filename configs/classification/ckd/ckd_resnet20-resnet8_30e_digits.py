# CKD as released for resnet56 -> resnet20.
_base_ = ['../baselines/resnet8_30e_digits.py']
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/resnet20_8e_digits.py',
                 checkpoint='work_dirs/resnet20_8e_digits/epoch_8.pth'),
    alignments=dict(
        image=dict(
            aligner=dict(type='ckd_mmdet.ImageAligner'),
            losses=dict(loss_ckd=dict(type='ckd_mmdet.CKDLoss', temperature=1.0, loss_weight=10.0)))))
