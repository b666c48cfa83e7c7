# The control: KD with its released weights, 0.1 beside 0.9, under the released budget; not run.
_base_ = ['../ckd/ckd_wrn_40_2-shufflev1_240e_cifar100.py']
model = dict(
    student=dict(head=dict(loss=dict(loss_weight=0.1))),
    alignments=dict(
        image=dict(
            losses=dict(
                _delete_=True,
                loss_kd=dict(type='ckd_mmdet.KDLoss', temperature=4.0, loss_weight=0.9)))))
