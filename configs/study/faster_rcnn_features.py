# Of PCKD on RoIs the alignment of features alone.
_base_ = ['../pckd/pckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py']

model = dict(alignments=dict(roi=dict(losses=dict(_delete_=True, loss_features=dict(
    type='FeatureAlignmentLoss', expansion=2, loss_weight=5.0)))))
