# PCKD (arXiv 2410.14143) with the weights released for wrn_40_2 -> wrn_16_2; without its KD, as in the command that is
# published. image_pckd_kd.py has it.
image_pckd = dict(
    image=dict(
        aligner=dict(type='ckd_mmdet.ImageAligner'),
        losses=dict(
            loss_contrast=dict(type='ckd_mmdet.CategoryContrastLoss', temperature=4.0, preview=dict(base=1.005),
                               loss_weight=0.05),
            loss_centers=dict(type='ckd_mmdet.CenterAlignmentLoss', loss_weight=1.0),
            loss_features=dict(type='ckd_mmdet.FeatureAlignmentLoss', expansion=16, loss_weight=20.0))))
