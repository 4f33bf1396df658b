"""Values of a config that no training can have."""

import math
import operator

from ml_collections import ConfigDict

from ovenet_jax.errors import UserError
from ovenet_jax.models.layers import PRECISIONS
from ovenet_jax.models.zoo import has_offsets
from ovenet_jax.training.health import POLICIES


def check_config(config: ConfigDict) -> None:
    """Raises UserError for values that no run can have."""
    intervals = ("report_every", "evaluate_every", "checkpoint_every")
    for key in ("steps", "batch_size", "accumulate", *intervals):
        value = operator.attrgetter(key)(config)
        if value < 1:
            raise UserError(f"config.{key} is {value}; it must be at least 1.")
    for key, value in config.optimizer.items():
        if not 0 <= value < math.inf:
            raise UserError(f"config.optimizer.{key} is {value}; it must be at least 0, and finite.")
    if config.precision not in PRECISIONS:
        raise UserError(f"config.precision is {config.precision!r}; known: {', '.join(PRECISIONS)}.")
    if not 0 <= config.ema < 1:
        raise UserError(
            f"config.ema is {config.ema}; it is a decay from 0 (no averages) to below 1, for example 0.9999."
        )
    for key, value in (("crop", config.augment.crop), ("resize", config.augment.resize or (1, 1))):
        if len(value) != 2 or min(value) < 1:
            raise UserError(
                f"config.augment.{key} is {value}; it must be (height, width), for example (360, 480)."
            )
    for key in ("scale_range", "aspect_range"):
        value = tuple(getattr(config.augment, key))
        if value and not (len(value) == 2 and 0 < value[0] <= value[1]):
            raise UserError(
                f"config.augment.{key} is {value}; it must be (least, most), both above 0, or () for none."
            )
    for key, least in (("base_size", 0), ("scale_factor", 0), ("brightness", 0), ("short_side", 0)):
        value = getattr(config.augment, key)
        if value < least:
            raise UserError(f"config.augment.{key} is {value}; it must be at least {least}.")
    if config.augment.short_side and config.augment.resize:
        raise UserError("config.augment has both short_side and resize; only one of them can come first.")
    for key in ("rare_class_crops", "brightness_share"):
        value = getattr(config.augment, key)
        if not 0 <= value <= 1:
            raise UserError(f"config.augment.{key} is {value}; it is a share, from 0 to 1.")
    policy, limit = config.non_finite.policy, config.non_finite.limit
    if policy not in POLICIES:
        raise UserError(f"config.non_finite.policy is {policy!r}; it must be 'stop' or 'skip'.")
    if limit < 0:
        raise UserError(f"config.non_finite.limit is {limit}; it must be at least 0.")
    for key, on in (("init.trunk", config.init.trunk), ("freeze_base", config.freeze_base)):
        if on and not has_offsets(config.model):
            raise UserError(
                f"config.{key} is for networks with offsets, and config.model has none; leave it out."
            )
        if on and not config.init.base:
            raise UserError(
                f"config.{key} needs a trained base network; name its folder in config.init.base."
            )
