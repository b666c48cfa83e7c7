# PCKD's four rotated views of CIFAR's images, each with a crop and a flip of its own.
four_views = [
    dict(type='ckd_mmdet.RotatedViews', transforms=[
        dict(type='RandomCrop', crop_size=32, padding=4), dict(type='RandomFlip', prob=0.5, direction='horizontal')]),
    dict(type='PackInputs')]
