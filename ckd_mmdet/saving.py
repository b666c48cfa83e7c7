from mmengine.hooks import Hook


class SafeSaving(Hook):
    pass
