# Ours, not the released settings: CKD on the foreground RoIs only, with weight 1. About three quarters of the sampled
# RoIs are background, and each would be a negative of all others.
roi_ckd_foreground = dict(
    roi=dict(
        aligner=dict(type='RoIAligner'),
        selector=dict(type='Foreground'),
        losses=dict(loss_ckd=dict(type='CKDLoss', temperature=1.0, loss_weight=1.0))))
