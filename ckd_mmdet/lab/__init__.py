"""What measures and shows: comparisons, analyses, benchmarks, demos and the data sets they are made of.

Its packages are the extra ``lab``; what needs them calls :func:`require_packages` first. Nothing of the core imports
the lab; the registry names its data set as a string.
"""

import importlib.util

PACKAGES = {'imagehash': 'imagehash', 'jinja2': 'jinja2', 'matplotlib': 'matplotlib', 'pandas': 'pandas',
            'scikit-learn': 'sklearn', 'scipy': 'scipy', 'tqdm': 'tqdm'}
"""What the extra installs, and the module each is imported by."""


def require_packages() -> None:
    """Check that the packages of the extra ``lab`` can be imported, without importing them.

    Raises:
        ImportError: If some are missing.
    """
    missing = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f'this needs {", ".join(missing)} of the extra `lab`; install it with '
                          '`pip install ckd_mmdet[lab]`, or `pip install .[lab]` in the repository.')
