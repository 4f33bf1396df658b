"""Turns out-of-memory errors of devices into UserErrors that name remedies."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from ovenet_jax.errors import UserError

TRAINING_MEMORY = (
    "lower config.batch_size or config.augment.crop, set config.rematerialise, which computes the same in less memory, "
    "or config.accumulate"
)
EVALUATION_MEMORY = "lower config.eval.images_per_device, config.eval.window or config.eval.base_size"


@contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Context manager: raises UserError with the `remedy` if device memory runs out inside the `with`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"The devices have too little memory ({str(error)[:200]}); {remedy}.") from error
