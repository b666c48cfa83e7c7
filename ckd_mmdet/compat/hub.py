"""Our configs under our own name, which mmengine gives to OpenMMLab's packages only."""


def register_configs() -> None:
    """Let ``'ckd_mmdet::...'`` name one of our configs, wherever ``'mmdet::...'`` can name one of mmdet's.

    The files are those in ``ckd_mmdet/.mim/configs``, where mmengine looks for a package's configs.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    # Not the name of the distribution but of a module: from it mmengine finds our folder by the import system, which
    # knows an editable install and a bare PYTHONPATH too; of a distribution it expects a `top_level.txt`.
    MODULE2PACKAGE.setdefault('ckd_mmdet', 'ckd_mmdet.registry')
