"""`Configured`: the config is the attributes with the names of the arguments."""

import keras
import pytest

import keras_vae as kv
from keras_vae.configured import Configured


class Base(Configured):
    def __init__(self, rate, shape=(2,)):
        self.rate, self.shape = rate, shape


class Derived(Base):
    def __init__(self, name, *, layer=None, **kwargs):
        super().__init__(**kwargs)
        self.name, self.layer = name, layer


def test_the_arguments_of_the_bases_are_in_the_config():
    layer = keras.layers.Dense(3)
    config = Derived("a", layer=layer, rate=0.5).get_config()
    assert {*config} == {"name", "layer", "rate", "shape"}
    again = Derived.from_config(config)
    assert (again.name, again.rate, [*again.shape]) == ("a", 0.5, [2])
    assert again.layer.units == 3 and again.layer is not layer


def test_a_constructor_without_kwargs_hides_the_arguments_of_its_base():
    class Fixed(Base):
        def __init__(self):
            super().__init__(rate=1.0)

    assert Fixed().get_config() == {}


def test_an_argument_without_an_attribute_is_an_error():
    class Forgets(kv.objectives.ELBO):
        def __init__(self, power, **kwargs):
            super().__init__(**kwargs)

    with pytest.raises(TypeError, match="Forgets must keep the argument `power`"):
        Forgets(2).get_config()


def test_a_config_of_ones_own_may_leave_arguments_to_the_base():
    class Own(kv.distributions.IndependentNormal):
        def __init__(self, event_shape, df, **kwargs):
            super().__init__(event_shape, **kwargs)
            self._df = df

        def get_config(self):
            return {**super().get_config(), "df": self._df}

    again = Own.from_config(Own((2,), df=3, scale=0.5).get_config())
    assert (again._df, again.scale, again.event_shape) == (3, 0.5, (2,))
