# mmcv.ops, which the tests import, needs this first.
import ckd_mmdet.compat  # noqa: F401
