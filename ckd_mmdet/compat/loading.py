"""MMEngine's checkpoints, read without running code that they may hold.

The official mmengine 0.10.7 calls ``torch.load`` as it was before torch 2.6 and cannot read its own checkpoints since;
the onedl line tries a safe reading and then, by itself, an unsafe one. :func:`register_loaders` puts one reading in
their place that serves both lines. The Runner, ``init_cfg`` and teachers all pass it.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import torch
from ckd_mmdet.compat import unpickling
from mmengine.fileio import get_file_backend

TRUST = 'CKD_MMDET_TRUST_CHECKPOINTS'
"""The environment variable that, set to 1, lets checkpoints run code."""
MALFORMED = (OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, ImportError, LookupError,
             NameError, AssertionError, ArithmeticError, MemoryError, pickle.UnpicklingError, struct.error,
             zipfile.BadZipFile, tarfile.TarError)
"""What Python, torch and zip archives raise on a file that is broken or of another kind."""
BEFORE_1_6 = bytes.fromhex('8a0a6cfc9c46f9206aa850192e')
"""A number, pickled, with which a file begins that torch wrote before 1.6 or without its zip format."""


class UnreadableCheckpoint(ValueError):
    """The file is no checkpoint, or a broken one."""


class UntrustedCheckpoint(ValueError):
    """The file could run code."""


@contextmanager
def trusting(trusted: bool = True) -> Iterator[None]:
    """Where ``trusted``, read checkpoints within the ``with`` as they are, with the code in them.

    It is an environment variable, so that processes that are started within know it too.
    """
    before = os.environ.get(TRUST)
    if trusted:
        os.environ[TRUST] = '1'
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(TRUST, None)
        else:
            os.environ[TRUST] = before


def register_loaders() -> None:
    """Let MMEngine read files, addresses and object stores by :func:`read`; calling it again changes nothing."""
    import mmengine.runner.checkpoint as theirs

    theirs.CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    theirs.CheckpointLoader.register_scheme(prefixes=[r'(\S+\:)?s3://', r'(\S+\:)?petrel://'],
                                            loader=load_from_ceph, force=True)
    # the one function by which http(s)://, torchvision://, open-mmlab:// and mmcls:// are downloaded and read
    theirs.load_url = load_url


# MMEngine's log names the scheme by the end of its loader's name: `load_from_<scheme>`

def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a file of this disk.

    Raises:
        FileNotFoundError: If there is none.
        UnreadableCheckpoint, UntrustedCheckpoint: As :func:`read`.
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f'{filename} can not be found.')
    with open(filename, 'rb') as file:
        return read(file, filename, map_location)


def load_from_ceph(filename: str, map_location: Any = None, backend: str = 'petrel') -> Any:
    """Read an object of MMEngine's Petrel store."""
    content = get_file_backend(filename, backend_args=dict(backend=backend)).get(filename)
    return read(io.BytesIO(content), filename, map_location)


def load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> Any:
    """Download to torch's cache, unless the file is there, and read it."""
    folder = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / os.path.basename(urlparse(url).path)
    if not path.exists():
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    return load_from_local(str(path), map_location)


def read(file: BinaryIO, name: str, map_location: Any = None) -> Any:
    """Read a checkpoint: tensors, plain values and what MMEngine's own hold, or anything where that is trusted.

    Args:
        file: Open for reading, at its begin.
        name: For errors.
        map_location: As in ``torch.load``.

    Raises:
        UnreadableCheckpoint: If it is no checkpoint of torch's, or broken.
        UntrustedCheckpoint: If it holds what could run code, and is not trusted.
    """
    try:
        _check_kind(file)
        if os.environ.get(TRUST) == '1':
            return torch.load(file, map_location=map_location, weights_only=False)
        return torch.load(file, map_location=map_location, weights_only=False, pickle_module=unpickling)
    except unpickling.Refused as error:
        raise UntrustedCheckpoint(
            f'{name} asks for `{error}`, which is no part of an ordinary checkpoint and could run code; it was not '
            'read. If you trust whoever made the file, read it all the same: with `--trust-checkpoint` (train, test '
            f'and export), with `trusted=True` in a config\'s `teacher`, elsewhere with {TRUST}=1 in the environment.'
        ) from error
    except MALFORMED as error:
        reason = ': '.join(filter(None, [type(error).__name__, str(error).split('\n')[0].rstrip('. ')]))
        raise UnreadableCheckpoint(f'{name} is no whole checkpoint ({reason}).') from error


def _check_kind(file: BinaryIO) -> None:
    start = file.read(32)
    if zipfile.is_zipfile(file):
        file.seek(0)
        if any(name.endswith('/constants.pkl') for name in zipfile.ZipFile(file).namelist()):
            raise ValueError('it is a TorchScript archive')
    elif start.startswith(b'PK\x03\x04'):
        raise ValueError('it is cut off')
    elif not start.startswith(b'\x80') or BEFORE_1_6 not in start:
        raise ValueError('it is empty' if not start else 'it is no file that torch.save wrote')
    file.seek(0)
