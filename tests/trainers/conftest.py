"""Files of a toy teacher, without which no trainer is tried."""

import pytest


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a file of six texts."""
    from tests.trainers import toys

    return toys.toy_file(tmp_path_factory.mktemp("six") / "teacher.parquet")


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """Return a file of the texts of a hundred steps."""
    from tests.trainers import toys

    path = tmp_path_factory.mktemp("hundred") / "teacher.parquet"
    return toys.toy_file(path, count=toys.STEPS * toys.TEXTS)


@pytest.fixture(scope="module")
def labeled(hundred):
    """Return its texts without what would follow their last tokens: no label has it."""
    return [x._replace(places=x.places[:-1], rows=x.rows[:-1]) for x in hundred]
