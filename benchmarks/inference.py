"""Time per image of the test protocols, and what buckets save: python -m benchmarks.inference [--width=18] ...

One table, on random images and untrained weights: time does not depend on either. A row's first image is timed with
its compilations (nothing is cached), later ones are the median. "varying" are images of as many sizes as there are.
"""

import statistics
import time

import jax
import numpy as np
from absl import app, flags

from configs import cityscapes
from ovenet_jax import parallel
from ovenet_jax.inference import Inference, Normalisation
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.protocol import Protocol, passes

WIDTH = flags.DEFINE_integer("width", 18, "Of HRNet's first branch; published: 48.")
HEIGHT = flags.DEFINE_integer("height", 256, "Of the images and of the test windows; they are twice as wide.")
IMAGES = flags.DEFINE_integer("images", 6, "Per row.")

SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
ROWS = (
    # title, scales, flip, windows, bucket, varying sizes
    ("scale 1", (1.0,), False, "cityscapes", 1, False),
    ("scale 1, flip", (1.0,), True, "cityscapes", 1, False),
    ("six scales, flip", SIX, True, "cityscapes", 1, False),
    ("six scales, flip, generic windows", SIX, True, "generic", 1, False),
    ("scale 1, varying, exact", (1.0,), False, "cityscapes", 1, True),
    ("scale 1, varying, bucket 64", (1.0,), False, "cityscapes", 64, True),
)


def main(_) -> None:
    config = cityscapes.get_config()
    config.model.backbone.width = WIDTH.value
    graphdef, *arrays = parameters.split(create_model(config.model))
    mesh = parallel.create_mesh(jax.local_devices()[:1])
    arrays = jax.device_put(arrays, parallel.replicated(mesh))
    print(f"HRNet-W{WIDTH.value} + OCR + offsets on one {jax.devices()[0].device_kind}")
    print(f"{'protocol':36}{'runs':>8}{'shapes':>8}{'first [s]':>11}{'later [s]':>11}")
    for title, scales, flip, windows, bucket, varying in ROWS:
        protocol = Protocol(
            base_size=2 * HEIGHT.value,
            window=(HEIGHT.value, 2 * HEIGHT.value),
            scales=scales,
            flip=flip,
            windows=windows,
            bucket=bucket,
        )
        jax.clear_caches()
        inference = Inference(
            graphdef,
            protocol,
            align_corners=True,
            normalisation=Normalisation(),
            mesh=mesh,
            answer_only=True,
        )
        seconds = []
        for image in images(varying):
            start = time.perf_counter()
            jax.block_until_ready(inference(*arrays, [image]).answer)
            seconds.append(time.perf_counter() - start)
        runs = len(passes(image.shape[:2], protocol, True)) * (1 + flip)
        first, later = seconds[0], statistics.median(seconds[1:])
        print(f"{title:36}{runs:8}{len(inference.pass_sizes):8}{first:11.2f}{later:11.2f}", flush=True)


def images(varying: bool):
    rng = np.random.default_rng(0)
    for _ in range(IMAGES.value):
        height = rng.integers(HEIGHT.value // 2, HEIGHT.value) if varying else HEIGHT.value
        yield rng.integers(0, 256, (height, 2 * HEIGHT.value, 3), dtype=np.uint8)


if __name__ == "__main__":
    app.run(main)
