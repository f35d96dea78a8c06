"""Evaluation of trained models: likelihood, active latent units, linear probes."""

from keras_vae.evaluation.baselines import PCA, reconstruction_error
from keras_vae.evaluation.bits import bits_per_dimension
from keras_vae.evaluation.collapse import active_units, kl_per_unit
from keras_vae.evaluation.importance_sampling import (
    ImportanceWeighted,
    importance_weighted,
)
from keras_vae.evaluation.probe import linear_probe, majority_rate

__all__ = [
    "PCA",
    "ImportanceWeighted",
    "active_units",
    "bits_per_dimension",
    "importance_weighted",
    "kl_per_unit",
    "linear_probe",
    "majority_rate",
    "reconstruction_error",
]
