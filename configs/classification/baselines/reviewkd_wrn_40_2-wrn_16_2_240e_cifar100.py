# ReviewKD (arXiv 2104.09044) of the three stages; its weight and width are ours. Not run.
_base_ = ['../ckd/ckd_wrn_40_2-wrn_16_2_240e_cifar100.py']
model = dict(
    alignments=dict(
        _delete_=True,
        neck=dict(
            aligner=dict(type='ckd_mmdet.NeckAligner'),
            losses=dict(loss_review=dict(
                type='ckd_mmdet.ReviewKDLoss', mid_channels=128, loss_weight=dict(value=1.0, warm_up=20))))))
