"""Heads and priors, named as in TensorFlow Probability."""

from keras_vae.distributions.base import Head, Prior
from keras_vae.distributions.deterministic import Deterministic
from keras_vae.distributions.independent_bernoulli import IndependentBernoulli
from keras_vae.distributions.independent_normal import (
    IndependentNormal,
    StandardNormal,
)
from keras_vae.distributions.prior_network import PriorNetwork

__all__ = [
    "Deterministic",
    "Head",
    "IndependentBernoulli",
    "IndependentNormal",
    "Prior",
    "PriorNetwork",
    "StandardNormal",
]
