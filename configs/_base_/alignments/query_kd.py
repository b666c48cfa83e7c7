# KD on the same rows, the control; temperature 1 and weight 1 are ours.
query_kd = dict(
    query=dict(
        aligner=dict(type='QueryAligner'),
        selector=dict(type='All'),
        losses=dict(loss_kd=dict(type='KDLoss', temperature=1.0, loss_weight=1.0))))
