_base_ = ['../baselines/faster_rcnn_r18w16_fpn_9e_digit_scenes.py', '../_base_/alignments/roi_pckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/baselines/faster_rcnn_r18_fpn_9e_digit_scenes.py',
                 checkpoint='work_dirs/faster_rcnn_r18_fpn_9e_digit_scenes/epoch_9.pth'),
    alignments=_base_.roi_pckd)  # ours
