# As roi_kd, from the last of a cascade's three stages.
roi_stage2_kd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner', stage=2),
        selector=dict(type='All'),
        losses=dict(loss_kd=dict(type='KDLoss', temperature=1.0, loss_weight=1.0))))
