"""Values of a config that no training can have."""

import math
import operator
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from ovenet_jax.errors import UserError
from ovenet_jax.models.layers import PRECISIONS
from ovenet_jax.models.zoo import has_offsets
from ovenet_jax.training.health import POLICIES


def check_config(config: ConfigDict) -> None:
    """Raises UserError for values that no run can have."""

    def check(keys: tuple[str, ...], fits: Callable[[Any], bool], wanted: str) -> None:
        for key in keys:
            value = operator.attrgetter(key)(config)
            if not fits(value):
                raise UserError(f"config.{key} is {value!r}; {wanted}.")

    intervals = ("report_every", "evaluate_every", "checkpoint_every")
    check(("steps", "batch_size", "accumulate", *intervals), lambda x: x >= 1, "it must be at least 1")
    for key, value in config.optimizer.items():
        if not 0 <= value < math.inf:
            raise UserError(f"config.optimizer.{key} is {value}; it must be at least 0, and finite.")
    check(("precision",), PRECISIONS.__contains__, f"known: {', '.join(PRECISIONS)}")
    decay = "it is a decay from 0 (no averages) to below 1, for example 0.9999"
    check(("ema",), lambda x: 0 <= x < 1, decay)
    sizes = ("augment.crop", "augment.resize") if config.augment.resize else ("augment.crop",)
    size = "it must be (height, width), for example (360, 480)"
    check(sizes, lambda x: len(x) == 2 and min(x) >= 1, size)
    check(
        ("augment.scale_range", "augment.aspect_range"),
        lambda x: not x or (len(x) == 2 and 0 < x[0] <= x[1]),
        "it must be (least, most), both above 0, or () for none",
    )
    numbers = ("augment.base_size", "augment.scale_factor", "augment.brightness", "augment.short_side")
    check((*numbers, "non_finite.limit"), lambda x: x >= 0, "it must be at least 0")
    shares = ("augment.rare_class_crops", "augment.brightness_share")
    check(shares, lambda x: 0 <= x <= 1, "it is a share, from 0 to 1")
    check(("non_finite.policy",), POLICIES.__contains__, "it must be 'stop' or 'skip'")
    if config.augment.short_side and config.augment.resize:
        raise UserError("config.augment has both short_side and resize; only one of them can come first.")
    for key, on in (("init.trunk", config.init.trunk), ("freeze_base", config.freeze_base)):
        if on and not has_offsets(config.model):
            raise UserError(f"config.{key} is for networks with offsets, which config.model is not; leave it out.")
        if on and not config.init.base:
            raise UserError(f"config.{key} needs a trained base network: name its folder in config.init.base.")
