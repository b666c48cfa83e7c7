# KD on the same rows, the control; temperature 1 and weight 1 are ours.
roi_kd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner'),
        selector=dict(type='All'),
        losses=dict(loss_kd=dict(type='KDLoss', temperature=1.0, loss_weight=1.0))))
