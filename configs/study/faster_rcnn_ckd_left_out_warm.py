# Foreground RoIs, those of one label no negatives of each other, weight 2, which rises over the whole training.
_base_ = ['./faster_rcnn_ckd_left_out.py']
model = dict(alignments=dict(roi=dict(
    losses=dict(loss_ckd=dict(loss_weight=dict(_delete_=True, value=2.0, warm_up=9))))))
