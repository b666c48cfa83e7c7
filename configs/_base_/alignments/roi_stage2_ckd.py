# As roi_ckd, from the last of a cascade's three stages.
roi_stage2_ckd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner', stage=2),
        selector=dict(type='All'),
        losses=dict(loss_ckd=dict(type='CKDLoss', temperature=1.0, loss_weight=0.1))))
