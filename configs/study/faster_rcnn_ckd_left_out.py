# Foreground RoIs, those of one label no negatives of each other.
_base_ = ['../ckd/ckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py']
model = dict(alignments=dict(roi=dict(losses=dict(loss_ckd=dict(negatives='other_label')))))
