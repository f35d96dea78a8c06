"""Models that the tests of several files share and no test changes."""

import pytest

from tests.citizenship.common import X, compiled, fit


@pytest.fixture(scope="module")
def shared():
    """A compiled model that no test changes."""
    return compiled()


@pytest.fixture(scope="module")
def in_order():
    """A model after two epochs of X, not shuffled, that no test changes."""
    model = compiled()
    fit(model, X, epochs=2, shuffle=False)
    return model
