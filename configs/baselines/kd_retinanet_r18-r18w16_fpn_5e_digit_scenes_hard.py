# The control: KD on the anchors of which the teacher is most confident.
_base_ = ['./retinanet_r18w16_fpn_5e_digit_scenes_hard.py', '../_base_/alignments/dense_kd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/baselines/retinanet_r18_fpn_5e_digit_scenes_hard.py',
                 checkpoint='work_dirs/retinanet_r18_fpn_5e_digit_scenes_hard/epoch_5.pth'),
    alignments=_base_.dense_kd)
