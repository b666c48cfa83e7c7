# CKD on ground-truth objects, each side's query matched by its own assigner; ours: nothing of the kind was released.
query_ckd = dict(
    query=dict(
        aligner=dict(type='QueryAligner'),
        selector=dict(type='All'),
        losses=dict(loss_ckd=dict(type='CKDLoss', temperature=1.0, loss_weight=1.0))))
