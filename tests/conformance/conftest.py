"""Each test of this folder is run on each row of the zoo."""

import pytest

from tests.zoo import ZOO


# With the scope of a module, so that all tests of a row come one after the other.
@pytest.fixture(scope="module", params=ZOO, ids=[row.name for row in ZOO])
def row(request):
    return request.param
