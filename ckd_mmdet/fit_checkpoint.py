"""A checkpoint that is tested has to be the config's: its weights, and its classes in the order of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ckd_mmdet.annotations import given_names
from ckd_mmdet.checkpoints import checkpoint_classes, load_weights, own_names, weights_of
from ckd_mmdet.labels import label_names, leaves
from ckd_mmdet.text import quoted
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner


class FitCheckpoint(Hook):
    """Refuses a checkpoint that does not fit what a Runner tests; MMEngine warns at most, and the metric is near 0.

    Args:
        checkpoint: What the Runner loads, for errors.
        argument: By which the user gives it, for errors.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which takes the weights as they are then

    def __init__(self, checkpoint: str, argument: str = 'checkpoint') -> None:
        self.checkpoint, self.argument = checkpoint, argument

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the weights the model's own names, and see that they are all its weights, for classes in this order.

        Raises:
            ValueError: If they are not.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        weights = weights_of(checkpoint, self.checkpoint, self.argument)
        load_weights(model, weights, self.checkpoint, 'the model of the config', self.argument)
        names = checkpoint_classes(checkpoint, self.checkpoint, self.argument)
        if names:
            check_class_order(names, runner.test_loop.dataloader.dataset, self.checkpoint, self.argument)
        checkpoint['state_dict'] = own_names(weights, model)


def check_class_order(names: Sequence[str], dataset: Any, checkpoint: str, argument: str) -> None:
    """Check that no class of a checkpoint is another number among the labels of the data.

    Names that only one of them has say nothing: a data set may call its classes otherwise.

    Args:
        names: Of the checkpoint's classes.
        dataset: A built data set, or a wrapper of some.
        checkpoint: Where they are from, for errors.
        argument: By which the user gives it, for errors.

    Raises:
        ValueError: If one is.
    """
    inner = list(leaves(dataset))
    if all(given_names(leaf) == tuple(names) for leaf in inner):
        return  # MMDetection's own training writes what the config says, whatever the labels are
    if any(getattr(leaf, 'return_classes', False) for leaf in inner):
        return  # where the classes are a prompt, they are the test's own
    for label, name in enumerate(label_names(dataset) or ()):
        if name in names and names.index(name) != label:
            raise ValueError(
                f'`{argument}` needs the classes of the test data in their order; {name!r} is class '
                f'{names.index(name)} in {checkpoint!r} and label {label} in the data. Bring the `categories` of the '
                'annotation file, or `test_dataloader.dataset.metainfo.classes` where the data set goes by it, into '
                f"the checkpoint's order, {quoted(names)}.")
