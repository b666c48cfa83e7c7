from collections.abc import Iterator

import pytest


@pytest.fixture(scope='module', autouse=True)
def each_file_is_read_once() -> Iterator[None]:
    from tests.configs.read_once import cache_files

    with pytest.MonkeyPatch.context() as patch:
        cache_files(patch)
        yield
