# DKD with its released settings for this pair, under CKD's released budget; not run.
_base_ = ['../ckd/ckd_wrn_40_2-shufflev1_480e_cifar100.py']
model = dict(
    alignments=dict(
        image=dict(
            losses=dict(
                _delete_=True,
                loss_dkd=dict(type='ckd_mmdet.DKDLoss', alpha=1.0, beta=8.0, temperature=4.0,
                              loss_weight=dict(value=1.0, warm_up=20))))))
