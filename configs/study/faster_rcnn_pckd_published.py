# PCKD on RoIs with the weights published for classifiers, four times those of our recipe.
_base_ = ['../pckd/pckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py']

model = dict(alignments=dict(roi=dict(losses=dict(
    loss_contrast=dict(loss_weight=0.05), loss_centers=dict(loss_weight=1.0), loss_features=dict(loss_weight=20.0)))))
