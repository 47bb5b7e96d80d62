"""One store that is made once; every test gets a copy of it."""

import pytest
from doctor_helpers import LONG, OTHER, SIDE, copy_store, fill


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("made") / "store", LONG, SIDE, OTHER)


@pytest.fixture
def store(made, tmp_path):
    """Eleven blocks, closed: five, three that part from them after the first, and three others."""
    return copy_store(made, tmp_path / "store")
