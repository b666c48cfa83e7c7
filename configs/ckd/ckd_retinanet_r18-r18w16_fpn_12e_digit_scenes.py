_base_ = ['../baselines/retinanet_r18w16_fpn_12e_digit_scenes.py', '../_base_/alignments/dense_ckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/baselines/retinanet_r18_fpn_12e_digit_scenes.py',
                 checkpoint='work_dirs/retinanet_r18_fpn_12e_digit_scenes/epoch_12.pth'),
    alignments=_base_.dense_ckd)  # ours: foreground anchors, weight 1
