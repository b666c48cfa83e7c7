_base_ = ['../baselines/faster_rcnn_r18w16_fpn_9e_digit_scenes.py', '../_base_/alignments/roi_ckd.py']

model = dict(
    _delete_=True,
    type='ckd_mmdet.Distiller',
    student=_base_.model,
    teacher=dict(config='configs/baselines/faster_rcnn_r18_fpn_9e_digit_scenes.py',
                 checkpoint='work_dirs/faster_rcnn_r18_fpn_9e_digit_scenes/epoch_9.pth'),
    # ours, not the released settings: the foreground RoIs only, with weight 1 (the README has the comparison)
    alignments=_base_.roi_ckd)
model['alignments']['roi'].update(selector=dict(type='Foreground'))
model['alignments']['roi']['losses']['loss_ckd'].update(loss_weight=1.0)
