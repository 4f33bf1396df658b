"""The input of networks that the configs do not say otherwise of."""

from configs import common
from ovenet_jax.models.normalisation import Normalisation

NORMALISATION = Normalisation.from_config(common.base_config("tests").model.input)
