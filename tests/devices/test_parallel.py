"""Many devices and several processes compute what one device computes, and send one another little."""

import math
import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.testing import assert_allclose

from ovenet_jax.data.labels import TOY_STREETS
from ovenet_jax.data.pipeline import train_batches
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.attention import SelfAttention
from ovenet_jax.models.contracts import Features
from ovenet_jax.models.isa import ISA
from ovenet_jax.models.layers import Conv, ConvNormAct, InitialValues, keep_layout, resize_bilinear, together
from ovenet_jax.models.ocnet import ASPOC, BaseOC, PyramidOC
from ovenet_jax.models.ocr import OCR
from ovenet_jax.models.resnet import ResNet, dilated_layers
from tests.collectives import collectives
from tests.float64 import float64
from tests.free_port import free_address
from tests.narrow_head import narrow_head
from tests.one_step import CLASSES, HEIGHT, IMAGES, WIDTH, Result, one_step
from tests.places import ROOT


def mesh_of(data: int, rows: int):
    return parallel.create_mesh(jax.devices()[: data * rows], (data, rows))


@pytest.fixture(scope="module")
def alone() -> Result:
    return one_step(mesh_of(1, 1), hrnet=True)


@pytest.fixture(scope="module")
def resnet_alone() -> Result:
    return one_step(mesh_of(1, 1), hrnet=False)


@pytest.fixture(scope="module")
def on_eight() -> Result:
    return one_step(mesh_of(8, 1), hrnet=False)


@pytest.fixture(scope="module")
def with_rows() -> Result:
    return one_step(mesh_of(4, 2), hrnet=True)


def assert_same(result: Result, expected: Result) -> None:
    """float64, where both agree to rounding; several float32 steps would be chaotic and compare nothing."""
    for name, value in expected.measures.items():
        assert_allclose(result.measures[name], value, rtol=1e-10, err_msg=name)
    for ours, theirs in ((result.statistics, expected.statistics), (result.gradients, expected.gradients)):
        largest = max(np.abs(value).max() for value in theirs.values())
        for name, value in theirs.items():
            scale = max(np.abs(value).max(), 1e-4 * largest)  # some gradients are 0 but for rounding
            assert_allclose(ours[name], value, rtol=1e-10, atol=1e-10 * scale, err_msg=name)


def test_every_array_of_hrnet_with_ocr_and_offsets_takes_part_in_a_step(alone):
    still = {name for name, x in alone.gradients.items() if not x.any()}
    assert still <= {name for name in alone.gradients if name.endswith(".conv.bias")}  # BatchNorm takes it away again
    initial = {"mean": 0, "var": 1}
    assert all((x != initial[name.rpartition(".")[2]]).any() for name, x in alone.statistics.items())


def test_a_batch_split_over_devices_gives_the_step_of_one(resnet_alone, on_eight):
    assert_same(on_eight, resnet_alone)


def test_rows_split_over_devices_give_the_step_of_one(alone, with_rows):
    assert_same(with_rows, alone)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 4), (1, 8), (2, 2), (1, 2)])
def test_rows_split_otherwise_give_the_step_of_one(alone, sizes):
    """pytest -m slow tests/devices/test_parallel.py"""
    assert_same(one_step(mesh_of(*sizes), hrnet=True), alone)


@pytest.mark.slow
def test_rows_split_give_the_step_of_one_in_micro_batches():
    alone, with_rows = (one_step(mesh_of(*sizes), hrnet=True, accumulate=2) for sizes in ((1, 1), (4, 2)))
    assert_same(with_rows, alone)
    assert not foreign(sent(with_rows.program, 2), with_rows)


@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (1, 8), (2, 2)])
@pytest.mark.parametrize("height", [2, 8])
def test_convolutions_have_the_right_gradients_however_few_rows_a_device_has(sizes, height):
    mesh = mesh_of(*sizes)
    layer = Conv(8, 8, 3, init=InitialValues(0, he=True))
    split = height % mesh.shape["rows"] == 0
    sharding = parallel.rows_sharded(mesh) if split else parallel.batch_sharded(mesh)

    def gradient(x):
        def loss(x):
            return jnp.sum(layer(jnp.tanh(layer(x))) ** 2)

        return jax.jit(jax.grad(loss))(x)

    with float64():
        x = np.random.default_rng(0).standard_normal((8, height, 4, 8))
        expected = gradient(x)
        layer.lay_out = parallel.row_layout(mesh)
        assert_allclose(gradient(jax.device_put(x, sharding)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (1, 8)])
@pytest.mark.parametrize("height", [2, 16])
def test_normalised_and_resized_as_on_gpus_with_the_right_gradients(sizes, height, on_a_gpu):
    """The gradients by hand, where maps have many rows, few, or less than one per device."""
    on_a_gpu()
    mesh = mesh_of(*sizes)
    layer = ConvNormAct(8, 8, 3, init=InitialValues(0, he=True))
    layer.train()
    graphdef, params, statistics = parameters.split(layer)

    def gradients(x, lay_out):
        def loss(params, x):
            layer = parameters.merge(graphdef, params, statistics)
            layer.set_attributes(lay_out=lay_out)
            larger = resize_bilinear(layer(x), (2 * height, 8), align_corners=True)
            larger, same = together([layer, layer], [larger, x])
            return jnp.sum(jnp.tanh(same + resize_bilinear(larger, (height, 4), align_corners=False)) ** 2)

        return jax.device_get(jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x))

    with float64():
        params = jax.tree.map(np.float64, params)
        x = np.random.default_rng(0).standard_normal((8, height, 4, 8))
        expected = gradients(x, keep_layout)
        split = height % mesh.shape["rows"] == 0
        sharding = parallel.rows_sharded(mesh) if split else parallel.batch_sharded(mesh)
        result = gradients(jax.device_put(x, sharding), parallel.row_layout(mesh))
    jax.tree.map(lambda x, y: assert_allclose(x, y, rtol=1e-10, atol=1e-10), result, expected)


def head(kind: type[nnx.Module], **options) -> nnx.Module:
    return narrow_head(kind, 6, InitialValues(0, he=True), **options)


OC = {"value_features": 4, "first_release": False, "align_corners": True}
PARTS = {
    "asp_oc": lambda: head(ASPOC, branch_features=4, dilations=(1, 2, 6), **OC),
    "isa": lambda: head(ISA, factors=((8, 8), (3, 2))),
    "resnet": lambda: ResNet(
        dilated_layers((1,) * 4, (2,) * 4, output_stride=8, multi_grid=(1,), half_dilation=True),
        stem=(4, 4, 4),
        init=InitialValues(0, he=True),
    ),
    "base_oc": lambda: head(BaseOC, half=False, **OC),
    "pyramid_oc": lambda: head(PyramidOC, sizes=(1, 2, 3)),
    "asp_ocr": lambda: head(OCR, dilations=(1, 2, 6), bias=True, output_bias=True),
}
SLOW_PARTS = ("base_oc", "pyramid_oc", "asp_ocr")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW_PARTS)) for kind in PARTS]
)
def test_other_networks_have_the_same_gradients_with_rows_split(kind):
    """Those whose maps are pooled, dilated, cut in blocks or compared pixel by pixel; all: -m "slow or not slow"."""
    mesh, part = mesh_of(2, 4), PARTS[kind]()
    part.train()
    rng = np.random.default_rng(0)
    for attention in (module for _, module in nnx.iter_modules(part) if isinstance(module, SelfAttention)):
        if isinstance(attention.output, Conv):  # which is 0 at first
            attention.output.kernel.set_value(rng.standard_normal(attention.output.kernel.shape))

    def gradients(*arrays):
        graphdef, _, statistics = parameters.split(part)

        def loss(params, maps):
            outputs = parameters.merge(graphdef, params, statistics)(maps)
            return sum(jnp.square(jnp.tanh(x)).sum() for x in jax.tree.leaves(outputs))

        return jax.device_get(jax.jit(jax.grad(loss, argnums=(0, 1)))(*arrays))

    with float64():
        params = {name: np.asarray(x, np.float64) for name, x in parameters.split(part)[1].items()}
        if kind == "resnet":
            maps = rng.standard_normal((4, 64, 16, 3))
        else:
            maps = Features(*rng.standard_normal((2, 4, 16, 6, 6)))
        expected = gradients(params, maps)
        part.set_attributes(lay_out=parallel.row_layout(mesh))
        result = gradients(parallel.replicate(mesh, params), jax.device_put(maps, parallel.rows_sharded(mesh)))
    scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree.map(lambda x, y: assert_allclose(x, y, rtol=1e-10, atol=1e-10 * scale), result, expected)


def sent(program: str, rows: int | None = None) -> Iterator[tuple[int, ...]]:
    """The shapes of what collectives bring to a device; with `rows`, of those between devices of different images."""
    for collective in collectives(program):
        if not rows or any(len({device // rows for device in group}) > 1 for group in collective.groups):
            yield from collective.shapes


def features_made_whole(program: str, channels: Set[int], images: int) -> list[tuple[int, ...]]:
    """The shapes sent that hold all pixels at stride 4, of `images` images, times one of the numbers of channels."""
    pixels = images * (HEIGHT // 4) * (WIDTH // 4)
    return [
        shape for shape in sent(program) for size in shape if size in channels and math.prod(shape) >= size * pixels
    ]


def foreign(shapes: Iterator[tuple[int, ...]], result: Result) -> set[tuple[int, ...]]:
    """Those that are neither of one number nor of a parameter, two sums of a BatchNorm or some rows of a kernel."""

    def key(shape):
        return tuple(sorted(size for size in shape if size > 1))

    arrays = [x.shape for x in [*result.gradients.values(), *result.statistics.values()]]
    known = {(), *map(key, arrays)}
    known |= {key((2, *x.shape)) for x in result.statistics.values()}
    known |= {key((rows, *shape[1:])) for shape in arrays if len(shape) == 4 for rows in range(1, shape[0])}
    return {shape for shape in shapes if key(shape) not in known}


def channels_of(result: Result) -> set[int]:
    kernels = [x.shape for x in result.gradients.values() if x.ndim == 4]
    return {size for shape in kernels for size in shape[2:]} - {CLASSES}


def test_features_are_never_made_whole(with_rows):
    channels = channels_of(with_rows)
    assert channels.isdisjoint({2, 3, 4, 8, 16, 32, 64, 128, 256, 512})  # the sizes of maps and batches
    assert not features_made_whole(with_rows.program, channels, images=2)
    assert any(shape[-1] == CLASSES for shape in sent(with_rows.program))  # the logits are


def test_features_made_whole_would_be_found(with_rows):
    """A network of two layers whose second takes its input whole."""
    mesh = mesh_of(4, 2)
    layers = [
        ConvNormAct(3, 9, 3, stride=2, init=InitialValues(0, he=False)),
        Conv(9, 7, 3, stride=2, init=InitialValues(0, he=False)),
    ]
    layers[0].conv.lay_out, layers[1].lay_out = (
        parallel.row_layout(mesh),
        lambda x, reach=0, **_: parallel.row_layout(mesh)(x, reach=x.shape[1] if reach else 0),
    )
    image = jax.ShapeDtypeStruct((8, HEIGHT, WIDTH, 3), jnp.float32, sharding=parallel.rows_sharded(mesh))
    program = jax.jit(lambda x: layers[1](layers[0](x))).lower(image).compile().as_text()
    assert features_made_whole(program, channels_of(with_rows), images=2)


@pytest.mark.parametrize(("run", "rows"), [("on_eight", 1), ("with_rows", 2)])
def test_only_gradients_statistics_and_losses_go_to_devices_with_other_images(run, rows, request):
    result = request.getfixturevalue(run)
    shapes = set(sent(result.program, rows))
    assert {x.shape for x in result.gradients.values()} & shapes
    if run == "on_eight":  # in float64 alone XLA splits no gradient of max pooling: tests/training/test_step.py
        pooled = {(IMAGES, HEIGHT // 2 + 3, WIDTH // 2 + 3, 4), (IMAGES, HEIGHT // 4 + 1, WIDTH // 4 + 1, 4)}
        assert pooled <= shapes
        shapes -= pooled
    assert not foreign(iter(shapes), result)


@pytest.mark.parametrize("sizes", [(8, 1), (4, 2)])
def test_anything_else_that_goes_there_would_be_found(sizes, on_eight):
    """A mean over the classes' scores of a whole batch, and scores sorted among all images."""
    mesh = mesh_of(*sizes)
    scores = jax.ShapeDtypeStruct((8, 16, 32, CLASSES), jnp.float32, sharding=parallel.rows_sharded(mesh))
    for function in (lambda x: x.mean(0), lambda x: jnp.sort(x.ravel())):
        program = jax.jit(function).lower(scores).compile().as_text()
        assert foreign(sent(program, rows=sizes[1]), on_eight)


class Numbers:
    """A data set whose images are their own number; it notes which have been read."""

    classes, has_labels, folder = TOY_STREETS, True, Path()

    def __init__(self, read: set[int]):
        self.read = read

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        self.read.add(index)
        return {"image": np.full((1, 1, 3), index, np.int32), "label": np.zeros((1, 1), np.uint8)}


def test_processes_read_only_their_share_of_the_data():
    reads = [set(), set()]
    for process, read in enumerate(reads):
        share = {"process_index": process, "process_count": 2}
        with train_batches(Numbers(read), (), batch_size=8, seed=0, first_step=0, **share) as batches:
            images = [next(batches)["image"] for _ in range(20)]
        assert all(image.shape == (4, 1, 1, 3) for image in images)
        assert {int(image[row, 0, 0, 0]) for image in images for row in range(4)} <= read
    assert all(80 <= len(read) < 200 for read in reads)  # some are read ahead
    assert reads[0].isdisjoint(reads[1])


@pytest.mark.parametrize("network", ["resnet", pytest.param("hrnet", marks=pytest.mark.slow)])
def test_two_processes_give_the_step_of_one(network, tmp_path, request):
    """Two real processes with two devices each, which split the batch; then the rows of its images, too."""
    command, meshes = [sys.executable, "-m", "tests.one_step", free_address(), "2"], ("4x1", "2x2")
    started = [subprocess.Popen([*command, str(i), network, tmp_path, *meshes], cwd=ROOT) for i in range(2)]
    expected = request.getfixturevalue("alone" if network == "hrnet" else "resnet_alone")
    assert [process.wait(timeout=240) for process in started] == [0, 0]
    expected = expected._replace(measures={"loss_total": expected.measures["loss_total"]})
    for mesh in meshes:
        saved = dict(np.load(tmp_path / f"{mesh}.npz"))
        arrays = ({name: saved[name] for name in part} for part in (expected.statistics, expected.gradients))
        assert_same(Result({"loss_total": saved["loss"]}, *arrays, ""), expected)


@pytest.mark.parametrize(
    ("own", "others", "told"),
    [("", None, None), ("no data", None, "^no data$"), ("", ["no data", 2], "^Process 1 says: no data$")],
)
def test_what_one_process_cannot_do_all_refuse(own, others, told, monkeypatch):
    monkeypatch.setattr(parallel, "gather", lambda value: [value, others])

    def work():
        with parallel.all_or_none():
            if own:
                raise UserError(own)

    if told is None:
        work()
    else:
        with pytest.raises(UserError, match=told):
            work()


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((8, 2), r"config.mesh=\(8, 2\) is not a mesh of all 8 devices"),
        ((2, 2), r"config.mesh=\(2, 2\) is not a mesh of all 8 devices"),
        ((0, 3), r"config.mesh=\(0, 3\) is not a mesh of all 8 devices"),
        ((0, 16), r"config.mesh=\(0, 16\) is not a mesh of all 8 devices"),
    ],
)
def test_a_mesh_that_the_devices_do_not_make_is_refused(sizes, sentence):
    with pytest.raises(UserError, match=sentence):
        parallel.create_mesh(sizes=sizes)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("Unable to initialize backend 'cuda':\nno driver"),
            "Unable to initialize backend 'cuda': no driver",
        ),
        (AssertionError(), "no NVIDIA GPU is visible"),
    ],
)
def test_a_platform_without_devices_is_named(monkeypatch, error, reason):
    def fail(_):
        raise error

    assert parallel.devices_in_words() == "8 x cpu"
    with pytest.raises(UserError, match="cannot use a platform"):
        parallel.devices("no such platform")
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(UserError, match=f"cannot use a platform .{reason}.; set JAX_PLATFORMS to another"):
        parallel.devices_in_words()


def test_the_mesh_takes_all_devices_for_the_batch_unless_told_otherwise():
    assert dict(parallel.create_mesh().shape) == {"data": 8, "rows": 1}
    assert dict(parallel.create_mesh(sizes=(0, 2)).shape) == {"data": 4, "rows": 2}


class Device:
    """As far as create_mesh looks at it."""

    def __init__(self, process_index: int):
        self.process_index = process_index


def test_images_stay_within_a_process():
    devices = [Device(process) for process in (0, 0, 1, 1)]
    with pytest.raises(UserError, match="over 4 devices, but a process has 2, and images stay within"):
        parallel.create_mesh(devices, (1, 4))


@pytest.mark.parametrize(
    ("sizes", "batch_size", "height", "sentence"),
    [
        ((8, 1), 6, 64, "config.batch_size=6 cannot be split over 8 devices.*--config.batch_size=8"),
        ((4, 2), 6, 64, "config.batch_size=6 cannot be split over 4 times 2 devices.*--config.batch_size=8"),
        ((4, 2), 8, 72, "config.augment.crop, 72, cannot be split over 2 devices.*a multiple of 32"),
        ((1, 8), 8, 64, "config.augment.crop, 64, cannot be split over 8 devices.*a multiple of 128"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(sizes, batch_size, height, sentence):
    with pytest.raises(UserError, match=sentence):
        parallel.check_divisible(mesh_of(*sizes), batch_size, height)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "group", "sentence"),
    [
        (8, 3, 1, "batch_size=8 cannot be split into config.accumulate=3 micro-batches over 8 devices; choose"),
        (16, 2, 2, "over 8 devices in the groups of 2 images that OHEM ranks together; choose a multiple of 32"),
    ],
)
def test_a_batch_that_cannot_be_split_into_micro_batches_is_named(batch_size, accumulate, group, sentence):
    with pytest.raises(UserError, match=sentence):
        parallel.check_divisible(mesh_of(8, 1), batch_size, 64, accumulate, group)


def test_a_batch_that_divides_is_accepted():
    parallel.check_divisible(mesh_of(8, 1), 16, 473)  # one device to an image: any height
    parallel.check_divisible(mesh_of(4, 2), 4, 64)
    parallel.check_divisible(mesh_of(8, 1), 32, 64, accumulate=2, group=2)
