# Foreground RoIs, the pull alone, weight 3.
_base_ = ['./faster_rcnn_ckd_intra.py']
model = dict(alignments=dict(roi=dict(losses=dict(loss_ckd=dict(loss_weight=3.0)))))
