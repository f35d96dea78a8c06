"""Each test in this folder runs on each row of the zoo."""

import pytest

from tests.zoo import ZOO


# Module scope, so that all tests of a row run one after the other.
@pytest.fixture(scope="module", params=ZOO, ids=[row.name for row in ZOO])
def row(request):
    return request.param
