# PCKD (arXiv 2410.14143) on RoIs, which is ours, with a quarter of the weights published for classifiers (0.05, 1, 20)
# and a narrower MLP (published: 16 times the teacher's width). Background is a category too, of which only the 64 rows
# count in which the teacher is most confident of an object.
roi_pckd = dict(
    roi=dict(
        aligner=dict(type='RoIAligner'),
        selector=dict(type='ForegroundPlus', k=64),
        losses=dict(
            loss_contrast=dict(type='CategoryContrastLoss', preview=dict(base=1.005), loss_weight=0.0125),
            loss_centers=dict(type='CenterAlignmentLoss', loss_weight=0.25),
            loss_features=dict(type='FeatureAlignmentLoss', expansion=2, loss_weight=5.0))))
