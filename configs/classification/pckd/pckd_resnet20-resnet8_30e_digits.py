# PCKD with its published weights and its KD. Ours: that one's weight, and plain images, as a six turned is a nine.
_base_ = ['../baselines/resnet8_30e_digits.py', '../_base_/alignments/image_pckd_kd.py']
model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/classification/baselines/resnet20_8e_digits.py',
                 checkpoint='work_dirs/resnet20_8e_digits/epoch_8.pth'),
    alignments=_base_.image_pckd)
