# DKD (arXiv 2203.08679) on the rows that CKD pairs; alpha, beta and temperature as released beside CKD for detection.
roi_dkd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner'),
        selector=dict(type='All'),
        losses=dict(loss_dkd=dict(type='DKDLoss', alpha=1.0, beta=0.25, temperature=1.0, loss_weight=1.0))))
