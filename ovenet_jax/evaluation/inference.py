"""Computes class scores of images at their own size with a test protocol."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh

from ovenet_jax import tables
from ovenet_jax.data.labels import Labels
from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.protocol import Pass, Protocol, Taps, canvas_size, passes, shapes
from ovenet_jax.models import contracts, layers, parameters, predictions
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.parameters import Arrays

WAITING = 4  # batches
STRIDE = 4  # of maps, if no pass covers the whole image
MOST_SHAPES = 64  # of canvases for which compiled programs are kept
SAFE = 60.0  # exp of logits within +-SAFE can be summed in float32
LEAST = float(np.finfo(np.float32).min)
KERNELS = Layout((3, 0, 1, 2))  # of kernels [k, k, in, out] in a GPU's memory, the last axis adjacent

# A running log-sum-exp per pixel: the sums of exp(logits - m) [..., K], and m [..., 1].
Sums = tuple[jax.Array, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segmentation:
    """The output for B images on a canvas (H, W), each at its top left.

    scores: float32 [B, H, W, K] by name (see TITLES): sums over all passes of exp(logits) or of logits. Where logits
    exceed +-SAFE, all sums of a pixel are scaled by one factor to stay finite. answer: the name of the final prediction
    ("fused" for OVeNet). maps: scores [B, h, w, K] by name of the largest pass over the whole image, at the network's
    resolution; offset, confidence: OVeNet's of that pass. If no pass covers the whole image, maps are means over the
    passes at every STRIDE-th pixel of the canvas, of logits (`logits` True) or probabilities (False; else None).
    Output that is not finite counts as 0: classes are equally likely, no seed is used. broken: bool [B], such images.
    """

    scores: dict[str, jax.Array]
    answer: str = field(metadata={"static": True})
    maps: dict[str, jax.Array]
    offset: jax.Array | None
    confidence: jax.Array | None
    logits: bool | None = field(default=None, metadata={"static": True})
    broken: Any = False

    @property
    def prediction(self) -> jax.Array:
        """The scores of the final prediction."""
        return self.scores[self.answer]


@dataclass(eq=False)
class Inference:
    """Runs networks of one graphdef over images, on the devices of `mesh`, `images_per_device` at a time on each.

    The network compiles once per window size; the cheap programs that cut windows and add scores compile once per
    canvas and window size. precision: the network's compute type; scores are float32. flip_pairs: classes that are
    exchanged by mirroring, like left and right arm. answer_only: only the final prediction, equal up to rounding.

    A pass takes three jitted functions: `read` cuts and mirrors a window, `forward` is the network, `add` adds scores.
    On GPUs `stored` lays out kernels as convolutions read them, so that no pass has to copy them.
    """

    graphdef: nnx.GraphDef
    protocol: Protocol
    align_corners: bool
    normalisation: Normalisation
    mesh: Mesh
    precision: str = "float32"
    images_per_device: int = 1
    flip_pairs: Sequence[tuple[int, int]] = ()
    answer_only: bool = False

    @classmethod
    def from_config(
        cls, config: Any, graphdef: nnx.GraphDef, classes: Labels, answer_only: bool = False
    ) -> "Inference":
        """From config.eval, for this process's own devices. Raises UserError: invalid settings."""
        return cls(
            graphdef,
            Protocol.from_config(config.eval),
            align_corners=config.model.align_corners,
            normalisation=Normalisation.from_config(config.model.input),
            mesh=parallel.create_mesh(jax.local_devices(), (0, config.mesh[1])),
            precision=config.eval.precision,
            images_per_device=config.eval.images_per_device,
            flip_pairs=classes.flip_pairs,
            answer_only=answer_only,
        )

    def __post_init__(self):
        self.rows = self.images_per_device * self.mesh.shape["data"]
        self.pass_sizes: set[tuple[int, int]] = set()  # sizes for which the network is compiled
        self.shapes: set[tuple[int, int]] = set()  # of canvases with compiled programs
        self.read = jax.jit(partial(read, normalisation=self.normalisation, precision=self.precision))
        cast = partial(jax.tree.map, lambda kernel: kernel.astype(self.precision))
        self.store = jax.jit(cast, out_shardings=Format(KERNELS, parallel.replicated(self.mesh)))
        self.forward = jax.jit(self._forward, out_shardings=parallel.batch_sharded(self.mesh))
        self.add = jax.jit(self._add, static_argnames="size", donate_argnums=0)
        self.programs: list[Any] = [self.read, self.forward, self.add]  # whoever measures each output adds its own

    def stored(self, params: Arrays, statistics: Arrays) -> tuple[Arrays, Arrays]:
        """Arrays, also those replicated over all processes, as `over` takes them: on the devices of `mesh`."""
        params, statistics = parallel.to_local(self.mesh, (params, statistics))
        if self.mesh.devices.flat[0].platform != "cpu":
            params |= self.store({name: x for name, x in params.items() if x.ndim == 4})
        return params, statistics

    def over(
        self, samples: Iterable[dict], params: Arrays, statistics: Arrays, warns: bool = True
    ) -> Iterator[tuple[list[dict], Segmentation]]:
        """Yields (samples, output) per batch, with `stored` arrays; `warns` at the end where output is not finite."""
        passed: list[tuple[list[str], jax.Array]] = []
        for batch in self.in_batches(samples):
            segmentation = self(params, statistics, [sample["image"] for sample in batch])
            passed.append(([sample.get("name", "the image") for sample in batch], segmentation.broken))
            yield batch, segmentation
        broken = [name for names, flags in passed for name in compress(names, jax.device_get(flags))]
        if warns and broken:
            images = f"{tables.number_of(len(broken), 'image')}, the first: {broken[0]}"
            print(f"Warning: the network's output is not finite at pixels of {images}; it counts as 0 there.")

    def in_batches(self, samples: Iterable[dict]) -> Iterator[list[dict]]:
        """Batches of `rows` samples with equal `shapes`, fewer at the end. Buffers at most WAITING * rows samples."""
        waiting: dict[tuple, list[dict]] = defaultdict(list)
        for sample in samples:
            alike = shapes(sample["image"].shape[:2], self.protocol, self.align_corners)
            waiting[alike].append(sample)
            too_many = sum(map(len, waiting.values())) > WAITING * self.rows
            if too_many:
                alike = max(waiting, key=lambda key: len(waiting[key]))
            if too_many or len(waiting[alike]) == self.rows:
                yield waiting.pop(alike)
        yield from waiting.values()

    def __call__(self, params: Arrays, statistics: Arrays, images: Sequence[np.ndarray]) -> Segmentation:
        """At most `rows` images [h, w, C] of one batch of `in_batches`; blank images are added."""
        images = [*images, *[np.zeros_like(images[0])] * (self.rows - len(images))]
        canvas, sharding = canvas_size(images[0].shape[:2], self.protocol), parallel.batch_sharded(self.mesh)
        pixels = jax.device_put(on_canvases(images, (self.rows, *canvas, images[0].shape[2]), 0), sharding)
        self.shapes.add(canvas)
        if len(self.shapes) > MOST_SHAPES:  # compiled programs take memory
            self.shapes = {canvas}
            for function in self.programs:
                function.clear_cache()
        plans = [passes(image.shape[:2], self.protocol, self.align_corners) for image in images]
        sums: dict[str, Sums] = {}
        whole, largest, broken = None, 0.0, False
        for same_pass in zip(*plans, strict=True):
            first: Pass = same_pass[0]
            self.pass_sizes.add(first.size)
            taps = jax.tree.map(lambda *x: np.stack(x), *[(p.read, p.write, p.write_parts) for p in same_pass])
            read, write, write_parts = jax.device_put(taps, sharding)
            window, mirrored = self.read(pixels, read)
            output = self.forward(params, statistics, window)
            other = self.forward(params, statistics, mirrored) if self.protocol.flip else None
            broken |= output.broken | (other.broken if other else False)
            if not sums:
                full = partial(jnp.full, device=sharding)
                sums = {
                    name: (full((self.rows, *canvas, x.shape[-1]), 0.0), full((self.rows, *canvas, 1), LEAST))
                    for name, x in output.scores.items()
                }
            for name, logits in output.scores.items():
                onto = write if name == output.answer else write_parts
                sums[name] = self.add(sums[name], logits, other and other.scores[name], onto, size=first.size)
            if all(p.whole for p in same_pass) and first.scale > largest:
                whole, largest = output, first.scale
        scores = {name: x for name, (x, _) in predictions.in_order(sums).items()}
        if whole:
            return replace(whole, scores=scores, maps=whole.scores, broken=broken)
        of_logits, passed = self.protocol.sum == "logits", len(self.protocol.scales)
        maps = {name: x[:, ::STRIDE, ::STRIDE] for name, x in scores.items()}
        maps = {name: x / (passed if of_logits else x.sum(-1, keepdims=True)) for name, x in maps.items()}
        return Segmentation(scores, output.answer, maps, None, None, of_logits, broken)

    def _forward(self, params: Arrays, statistics: Arrays, image: jax.Array) -> Segmentation:
        """The network's output for normalised images, at its stride, with its stored BatchNorm statistics."""
        model = parameters.merge(self.graphdef, params, statistics)
        model.eval()
        model.set_attributes(lay_out=parallel.row_layout(self.mesh))
        output: contracts.Output = model(image)
        scores = output.predictions
        *_, answer = scores
        if self.answer_only:
            scores = {answer: scores[answer]}
        outputs = scores, getattr(output, "offset", None), getattr(output, "confidence", None)
        finite = jax.tree.map(lambda x: jnp.isfinite(x).all(-1, keepdims=True), outputs)
        scores, offset, confidence = jax.tree.map(lambda x, known: jnp.where(known, x, 0), outputs, finite)
        broken = ~jnp.all(jnp.stack([known.all((1, 2, 3)) for known in jax.tree.leaves(finite)]), axis=0)
        return Segmentation(scores, answer, {}, offset, confidence, broken=broken)

    def _add(
        self,
        before: Sums,
        logits: jax.Array,
        mirrored: jax.Array | None,
        taps: tuple[Taps, Taps],
        size: tuple[int, int],
    ) -> Sums:
        """Adds a pass of `size` to a prediction's sums: logits, averaged with the mirror image's, or exp of them."""
        if mirrored is not None:
            logits = logits / 2 + _exchanged(mirrored[:, :, ::-1], self.flip_pairs) / 2
        values = layers.resize_bilinear(logits, size, align_corners=self.align_corners)
        total, factor = before
        if self.protocol.sum == "logits":
            return total + _interpolate(values, taps), factor
        largest = values.max(-1, keepdims=True)
        own = largest - jnp.clip(largest, -SAFE, SAFE)
        added, own = _interpolate_sums(jnp.exp(values - own), own, taps)
        common = jnp.maximum(factor, own)
        return total * jnp.exp(factor - common) + added * jnp.exp(own - common), common


def read(
    image: jax.Array, taps: tuple[Taps, Taps], *, normalisation: Normalisation, precision: str
) -> tuple[jax.Array, jax.Array]:
    """uint8 or uint16 [B, H, W, C] -> one window of it at one scale, normalised, [B, h, w, C], and its mirror image."""
    window = normalisation(_interpolate(image.astype(jnp.float32), taps)).astype(precision)
    return window, window[:, :, ::-1]


def _exchanged(logits: jax.Array, pairs: Sequence[tuple[int, int]]) -> jax.Array:
    """`logits` [..., K] with the two classes of each pair exchanged."""
    if not pairs:
        return logits
    order = np.arange(logits.shape[-1])
    for left, right in pairs:
        order[[left, right]] = right, left
    return logits[..., order]


def _interpolate(x: jax.Array, taps: tuple[Taps, Taps]) -> jax.Array:
    """[B, H, W, C] -> [B, h, w, C], each image with its own taps of rows and columns (arrays [B, 2, n])."""

    def along_rows(x: jax.Array, taps: Taps) -> jax.Array:
        first, second = (w[:, None, None] * x[i] for i, w in zip(taps.indices, taps.weights, strict=True))
        return (first + second).swapaxes(0, 1)

    return jax.vmap(lambda x, rows, columns: along_rows(along_rows(x, rows), columns))(x, *taps)


def _interpolate_sums(sums: jax.Array, factor: jax.Array, taps: tuple[Taps, Taps]) -> Sums:
    """`_interpolate` for sums with factors: rescales source pixels to a common factor per output pixel."""

    def along_rows(x: jax.Array, factor: jax.Array, taps: Taps) -> Sums:
        factors = jnp.where(taps.weights[..., None, None] > 0, factor[taps.indices], LEAST)
        largest = factors.max(0)
        weights = taps.weights[..., None, None] * jnp.exp(factors - largest)
        first, second = (w * x[i] for i, w in zip(taps.indices, weights, strict=True))
        return (first + second).swapaxes(0, 1), largest.swapaxes(0, 1)

    along_both = jax.vmap(lambda x, factor, rows, columns: along_rows(*along_rows(x, factor, rows), columns))
    return along_both(sums, factor, *taps)


def on_canvases(arrays: Sequence[np.ndarray], shape: Sequence[int], value: int) -> np.ndarray:
    """At most B arrays [h, w, ...], each at the top left of a canvas of `value`: of `shape` [B, H, W, ...]."""
    filled = np.full(shape, value, arrays[0].dtype)
    for canvas, array in zip(filled, arrays, strict=False):
        canvas[: array.shape[0], : array.shape[1]] = array
    return filled
