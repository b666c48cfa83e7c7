# PCKD with its KD, whose weight is not published: 1 is ours.
_base_ = ['./image_pckd.py']
image_pckd = dict(
    image=dict(
        losses=dict(
            loss_kd=dict(type='ckd_mmdet.KDLoss', temperature=4.0, preview=dict(base=1.005), loss_weight=1.0))))
