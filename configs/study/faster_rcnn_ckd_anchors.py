# Foreground anchors, all sampled RoIs as negatives.
_base_ = ['../ckd/ckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py']
model = dict(alignments=dict(roi=dict(
    selector=dict(_delete_=True, type='All'),
    losses=dict(loss_ckd=dict(anchors='foreground')))))
