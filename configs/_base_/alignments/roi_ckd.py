# CKD as released (arXiv 2404.14109): all sampled RoIs, background included; temperature 1; weight 0.1 for detection.
roi_ckd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner'),
        selector=dict(type='All'),
        losses=dict(loss_ckd=dict(type='CKDLoss', temperature=1.0, loss_weight=0.1))))
