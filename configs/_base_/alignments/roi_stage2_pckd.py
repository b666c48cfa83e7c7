# As roi_pckd, from the last of a cascade's three stages.
roi_stage2_pckd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner', stage=2),
        selector=dict(type='ForegroundPlus', k=64),
        losses=dict(
            loss_contrast=dict(type='CategoryContrastLoss', preview=dict(base=1.005), loss_weight=0.0125),
            loss_centers=dict(type='CenterAlignmentLoss', loss_weight=0.25),
            loss_features=dict(type='FeatureAlignmentLoss', expansion=2, loss_weight=5.0))))
