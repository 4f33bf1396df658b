"""Time and memory of Base-OC's and ISA's attention: python -m benchmarks.attention [--sizes 32x64 64x128 128x256] ...

The context blocks alone, with the published numbers of channels but ReLU, on random maps of these sizes (64x128 is an
image of 512x1024 at stride 8): Base-OC's with all scores at once and, as the networks have it, in turns; and ISA's.
"memory" is what the compiled forward and backward pass holds besides its inputs and outputs; what a CPU's libraries
allocate for themselves is not in it. "difference" compares the outputs, and the gradients of the maps, of both forms of
Base-OC. Needs jax, flax and numpy only.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sampling import difference
from benchmarks.table import Table, parser
from benchmarks.timing import median_seconds
from ovenet_jax.configs.keys import PRECISIONS
from ovenet_jax.models import parameters
from ovenet_jax.models.attention import Attend, SelfAttention, attend, softmax_attention
from ovenet_jax.models.isa import InterlacedAttention
from ovenet_jax.models.layers import InitialValues, relu

FEATURES, KEY_FEATURES = 512, 256
OPTIONS = {"key_features": KEY_FEATURES, "activation": relu, "init": InitialValues(0, he=False)}


def all_at_once(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """`attend` with the scores of all N x N pairs: [B, H, W, D], [B, H, W, D], [B, H, W, C] -> [B, H, W, C]."""
    sequences = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (query, key, value))
    return softmax_attention(*sequences).reshape(value.shape)


FORMS: dict[str, Attend | None] = {"Base-OC, all at once": all_at_once, "Base-OC": attend, "ISA": None}


def main() -> None:
    arguments = parse()
    columns = {"map": "9s", "block": "22s", "forward [ms]": "14.1f", "forward + backward [ms]": "25.1f"}
    columns |= {"memory [MB]": "13.1f", "difference": "12.1e"}
    device = jax.devices()[0].device_kind
    print(f"Maps of {arguments.batch} x H x W x {FEATURES}, {arguments.precision}, on one {device}")
    table = Table(columns, arguments.json, device=device, arguments=vars(arguments))
    for height, width in arguments.sizes:
        shape, expected = (arguments.batch, height, width, FEATURES), None
        for name, form in FORMS.items():
            if form is all_at_once and height * width > arguments.all_at_once_up_to:
                continue
            *measured, results = measure(form, shape, arguments.precision, arguments.repeats)
            expected = results if form is all_at_once else expected
            differs = difference(results, expected) if form and expected else None
            table.row(f"{height}x{width}", name, *measured, differs)


def parse() -> argparse.Namespace:
    arguments = parser("attention", "Time and memory of Base-OC's and ISA's attention.")
    sizes = [(32, 64), (64, 128), (128, 256)]
    arguments.add_argument("--sizes", nargs="+", type=map_size, default=sizes, help="of the maps, HxW")
    arguments.add_argument("--batch", type=int, default=1, help="maps")
    arguments.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the maps")
    arguments.add_argument("--repeats", type=int, default=3, help="runs that are timed")
    helps = "pixels of the largest map that is also measured all at once, which holds four arrays of pixels x pixels"
    arguments.add_argument("--all_at_once_up_to", type=int, default=8192, help=helps)
    return arguments.parse_args()


def map_size(text: str) -> tuple[int, int]:
    """ "64x128" -> (64, 128)."""
    try:
        height, width = map(int, text.split("x"))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a map; give height and width, like 64x128")
    return height, width


def measure(
    form: Attend | None, shape: tuple[int, int, int, int], precision: str, repeats: int
) -> tuple[float, float, float, tuple[jax.Array, jax.Array]]:
    """Milliseconds forward and with backward, temporary memory in MB, and the output with the gradient of the maps.
    form: of Base-OC's attention; None for ISA's block.

    All parameters are random: the networks' own output projections start with zeros, and so would the gradients of all
    that comes before.
    """
    if form is None:
        block: SelfAttention | InterlacedAttention = InterlacedAttention(FEATURES, block=(8, 8), **OPTIONS)
    else:
        block = SelfAttention(FEATURES, value_features=KEY_FEATURES, **OPTIONS)
    graphdef, params, norms = parameters.split(block)
    rng = np.random.default_rng(0)
    params = {name: _random(rng, x.shape) for name, x in params.items()}
    x, gradient = (jnp.asarray(rng.standard_normal(shape, np.float32), precision) for _ in range(2))
    params, norms = jax.device_put((params, norms))

    def forward(params: parameters.Arrays, x: jax.Array) -> jax.Array:
        module = parameters.merge(graphdef, params, norms)
        module.train()
        return module(x, form) if form else module(x)

    def forward_and_backward(params: parameters.Arrays, x: jax.Array, gradient: jax.Array) -> tuple:
        output, backward = jax.vjp(forward, params, x)
        return output, backward(gradient)

    forward_alone = jax.jit(forward)
    both = jax.jit(forward_and_backward).lower(params, x, gradient).compile()
    calls = (lambda: forward_alone(params, x), lambda: both(params, x, gradient))
    times = [1000 * median_seconds(call, repeats, warm_up=1) for call in calls]
    output, (_, to_maps) = both(params, x, gradient)
    return *times, both.memory_analysis().temp_size_in_bytes / 1e6, (output, to_maps)


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels [h, w, in, out] that keep the spread of their input, and vectors of spread 1."""
    return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1])))


if __name__ == "__main__":
    main()
