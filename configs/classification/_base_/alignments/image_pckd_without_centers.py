# PCKD between last layers of different widths: what the released code does then, and says nothing of.
image_pckd_without_centers = dict(
    image=dict(
        aligner=dict(type='ckd_mmdet.ImageAligner'),
        losses=dict(
            loss_contrast=dict(type='ckd_mmdet.CategoryContrastLoss', temperature=4.0, preview=dict(base=1.005),
                               loss_weight=0.05),
            loss_features=dict(type='ckd_mmdet.FeatureAlignmentLoss', expansion=16, loss_weight=20.0))))
