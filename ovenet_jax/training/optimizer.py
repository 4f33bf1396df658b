"""The published optimizer, SGD with momentum under a poly schedule, and AdamW, composed from optax."""

from typing import Any

import jax.numpy as jnp
import optax

HEADS = ("head.", "offset_head.")  # prefixes of the names of their parameters


def poly_schedule(base_rate: float, total_steps: int, power: float) -> optax.Schedule:
    """base_rate * (1 - t / T)^power, one step late: the published loop sets the rate after each step, so steps
    0 and 1 both use the base rate."""
    poly = optax.polynomial_schedule(base_rate, 0.0, power, transition_steps=total_steps, transition_begin=1)
    # optax counts in int32 and would round the rate to float32 even where everything else is float64.
    return lambda step: poly(jnp.asarray(step, jnp.result_type(float)))


def warmup(steps: int) -> optax.Schedule:
    """A factor of the learning rate: min((t + 1) / steps, 1)^4. Source: openseg's `warm_lr`."""
    return lambda step: jnp.minimum((jnp.asarray(step, jnp.result_type(float)) + 1) / steps, 1.0) ** 4


def from_config(config: Any) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The schedule of config.optimizer over config.steps (a ConfigDict), and the optimizer that follows it."""
    settings = {key: config.optimizer[key] for key in config.optimizer}
    schedule = poly_schedule(settings.pop("rate"), config.steps, settings.pop("power"))
    return schedule, create_optimizer(schedule, **settings)


def create_optimizer(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    head_rate_multiplier: float = 1.0,
    warmup_steps: int = 0,
    name: str = "sgd",
    clip_norm: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """SGD, with Nesterov's momentum if asked; the decay is added to the gradient of every parameter, BatchNorm's and
    biases too. Or `name` "adamw": AdamW with `momentum` as its first beta and decoupled decay.

    `head_rate_multiplier` scales the rate of the HEADS (published `NONBACKBONE_MULT`; 10 for PASCAL-Context in
    openseg). `warmup_steps`: steps in which the rate of all other parts grows to its full value (openseg); 0: none.
    `clip_norm`: gradients are scaled down to this global norm; 0: never.
    """

    def masked(transformation: optax.GradientTransformation, heads: bool) -> optax.GradientTransformation:
        return optax.masked(transformation, lambda params: {name: name.startswith(HEADS) == heads for name in params})

    steps = [optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=momentum, nesterov=nesterov)]
    if name == "adamw":
        steps = [optax.adamw(schedule, b1=momentum, weight_decay=weight_decay)]
    if clip_norm:
        steps.insert(0, optax.clip_by_global_norm(clip_norm))
    if head_rate_multiplier != 1.0:
        steps.append(masked(optax.scale(head_rate_multiplier), heads=True))
    if warmup_steps:
        steps.append(masked(optax.scale_by_schedule(warmup(warmup_steps)), heads=False))
    return optax.chain(*steps)
