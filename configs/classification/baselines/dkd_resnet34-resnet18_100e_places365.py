# DKD with its settings for ImageNet, for want of released ones, under the budget of CKD; not run.
_base_ = ['../ckd/ckd_resnet34-resnet18_100e_places365.py']
model = dict(
    alignments=dict(
        image=dict(
            losses=dict(
                _delete_=True,
                loss_dkd=dict(type='ckd_mmdet.DKDLoss', alpha=1.0, beta=0.5, temperature=1.0,
                              loss_weight=dict(value=1.0, warm_up=1))))))
