"""Several processes on a machine without a GPU, for which mmengine's launcher is not made."""

from datetime import timedelta

from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed


def prepare_cpu_launcher(cfg: Config) -> None:
    """Make a config with ``launcher='pytorch'`` run on CPU; call it before ``Runner.from_cfg``.

    mmengine calls ``torch.cuda.set_device`` when it opens a process group, and gives its model
    wrapper ``device_ids``; both fail without a GPU. So open the group here, with gloo and from
    torchrun's environment, and name a wrapper without ``device_ids``, unless
    ``cfg.model_wrapper_cfg`` is set. With an accelerator, or another launcher, change nothing.
    """
    if cfg.get('launcher') != 'pytorch' or get_device() != 'cpu':
        return
    if not distributed.is_initialized():
        seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        timeout = None if seconds is None else timedelta(seconds=seconds)
        distributed.init_process_group('gloo', timeout=timeout)
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'device_ids': None,
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
        }
