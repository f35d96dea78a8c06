"""One set of exports, shared by all tests of a process."""

import pytest

from tests.exporting.exports import Exports


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    return Exports(tmp_path_factory.mktemp("exports"))
