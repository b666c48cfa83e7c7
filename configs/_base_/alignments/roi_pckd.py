# PCKD (arXiv 2410.14143) on RoIs, which is ours: published for classifiers alone, with the weights 0.05, 1 and 20 and
# the features' MLP 16 times as wide. Background is a category too, of which only the likeliest 64 rows count.
roi_pckd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner'),
        selector=dict(type='ForegroundPlus', k=64),
        losses=dict(
            loss_contrast=dict(type='CategoryContrastLoss', preview=dict(base=1.005), loss_weight=0.05),
            loss_centers=dict(type='CenterAlignmentLoss', loss_weight=1.0),
            loss_features=dict(type='FeatureAlignmentLoss', expansion=2, loss_weight=1.0))))
