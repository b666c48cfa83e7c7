# Foreground RoIs, both directions.
_base_ = ['../ckd/ckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py']
model = dict(alignments=dict(roi=dict(losses=dict(loss_ckd=dict(contrast='symmetric')))))
