"""Knowledge distillation for MMDetection."""

__version__ = '0.1.0'


def __getattr__(name: str) -> object:
    """``ckd_mmdet.distill_config``, for notebooks; only asking for it imports torch and mmdet."""
    if name == 'distill_config':
        return __import__('ckd_mmdet.auto', fromlist=[name]).distill_config
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
