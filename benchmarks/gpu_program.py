"""What GPUs would do in a training step or a test: python -m benchmarks.gpu_program --config=configs/FILE.py[:variant]

JAX compiles for GPUs that are only described (`gpus.py`), and the program is read: how many kernels it launches, what
they move and compute, and the least time that takes. Per kernel that is the longer of its bytes through memory and its
products at the rate of their type, and the launch; the rates are those of the card's data sheet times what good kernels
reach of them (`ATTAINED`). Without the card nothing is tuned: convolutions have no algorithm yet, and cuDNN's workspace
is missing in the memory.

    make gpu-program GPU_PROGRAM="--config=configs/cityscapes.py:ovenet --config.precision=bfloat16"

makes the environment that this needs, and runs it. --save keeps the program, --program reads one that was kept, and
--beside another next to it. --gpus=8: of one host; the config's batch is that of all of them. --test=1024,2048: instead
of the step, the test of images of that size by config.eval, in all its passes.
"""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.experimental.layout import Format
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from benchmarks import hlo
from benchmarks.gpus import GPU, GPUS
from benchmarks.hlo import Kernel
from benchmarks.table import json_file
from ovenet_jax import files, plan
from ovenet_jax.devices import parallel
from ovenet_jax.evaluation import inference, protocol
from ovenet_jax.models import layers, parameters
from ovenet_jax.models.layers import BatchNorm
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.zoo import create_model

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py[:variant], see configs/.", lock_config=True)
GPU_NAME = flags.DEFINE_enum("gpu", "h200", sorted(GPUS), "The card.")
COUNT = flags.DEFINE_integer("gpus", 1, "How many of them in one host.", lower_bound=1)
TEST = flags.DEFINE_list("test", None, "Height and width of images that are tested, instead of a step.")
SAVE = flags.DEFINE_string("save", None, "Keeps the program in this file.")
PROGRAM = flags.DEFINE_string("program", None, "Reads a program that was kept, instead of compiling.")
BESIDE = flags.DEFINE_string("beside", None, "Another one that was kept, to compare with.")
JSON = flags.DEFINE_string("json", json_file("gpu_program"), "File for the numbers.")

ATTAINED = {"bandwidth": 4.3 / 4.8, "matrix": 790 / 989, "float32": 50 / 67}  # shares of the data sheet, assumed
# Without a card nothing can be tuned, and untuned Triton has no tiles for products.
UNTUNED = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
MESSAGE = 15e-6  # seconds a small message between the GPUs of a host takes, with all that it waits for; assumed
LAUNCH = 2e-6  # seconds per kernel, assumed
# Where a kernel is, by the scopes of its path; the first two are functions of a test.
SCOPES = ("read", "_add", "loss", "optimizer", "measures", "sample", "fuse", "resize_bilinear")
# The last operations of kernels that BatchNorm, relu and adding become.
NORMALISING = {"reduce_sum", "stack", "select_n", "convert_element_type", "add", "add_any"}
LARGE = 1e6  # bytes that a kernel moves; smaller ones take hardly longer than their launch


class Compiled(NamedTuple):
    """A program, and how often it runs."""

    times: int
    text: str


class Row(NamedTuple):
    """Kernels added up; `floor` in seconds."""

    kernels: int
    bytes: int
    flop: float
    floor: float


def main(_: list[str]) -> None:
    config, gpu = CONFIG.value, GPUS[GPU_NAME.value]
    size = tuple(int(side) for side in TEST.value or config.augment.crop)
    images = config.eval.images_per_device if TEST.value else config.batch_size / COUNT.value
    content: dict[str, Any] = {"jax": jax.__version__, "gpu": gpu._asdict(), "gpus": COUNT.value}
    content |= {"images": images, "size": size, "config": config.to_dict()}
    if PROGRAM.value:
        programs = read_programs(PROGRAM.value)
    else:
        mesh = described_mesh(gpu, COUNT.value, config.mesh)
        lowered = lower_test(config, mesh, size) if TEST.value else {"step": (1, plan.lower_step(config, mesh))}
        options = UNTUNED | {"xla_gpu_deterministic_ops": config.deterministic}
        compiled = {name: (times, one.compile(options)) for name, (times, one) in lowered.items()}
        programs = [Compiled(times, one.as_text()) for times, one in compiled.values()]
        content["memory"] = {name: memory(one) for name, (_, one) in compiled.items()}
        for name, sizes in content["memory"].items():
            print(f"memory [GB], {name}: " + ", ".join(f"{key} {size / 1e9:.2f}" for key, size in sizes.items()))
    if SAVE.value:
        files.write_json(Path(SAVE.value), [one._asdict() for one in programs])
    side_by_side = [programs, *([read_programs(BESIDE.value)] if BESIDE.value else [])]
    runs = network_runs(config, size) if TEST.value else {size: 1}
    elements = sum(times * normalised_elements(config, one) for one, times in runs.items())
    content["tables"] = show(side_by_side, gpu, images, images * elements)
    files.write_json(Path(JSON.value), content)


def read_programs(file: str) -> list[Compiled]:
    """As --save keeps them."""
    return [Compiled(**one) for one in json.loads(Path(file).read_text())]


def described_mesh(gpu: GPU, count: int, sizes: tuple[int, int]) -> Mesh:
    """Of `count` of these cards in one host, where there need not be any."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # no driver is wanted
    jax.config.update("jax_platforms", "cpu")  # the host's; the GPUs are in the description alone
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name=gpu.name, topology=f"1x1x{count}", target_config=gpu.description()
    )
    return parallel.create_mesh(topology.devices, sizes)


def lower_test(config: ConfigDict, mesh: Mesh, size: tuple[int, int]) -> dict[str, tuple[int, jax.stages.Lowered]]:
    """All programs of the test of images of this size by the config's protocol, and how often each of them runs."""
    graphdef, *arrays = parameters.split(create_model(config.model))
    test = inference.Inference(
        graphdef,
        protocol.Protocol.from_config(config.eval),
        align_corners=config.model.align_corners,
        normalisation=Normalisation.from_config(config.model.input),
        mesh=mesh,
        precision=config.eval.precision,
        images_per_device=config.eval.images_per_device,
    )
    params, statistics = parallel.replicated_shapes(mesh, arrays)
    stored = Format(inference.KERNELS, parallel.replicated(mesh))
    for name, x in params.items():
        if x.ndim == 4:
            params[name] = jax.ShapeDtypeStruct(x.shape, config.eval.precision, sharding=stored)

    def of_images(tree: Any) -> Any:
        sharding = parallel.batch_sharded(mesh)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((test.rows, *x.shape[1:]), x.dtype, sharding=sharding), tree)

    canvas = protocol.canvas_size(size, test.protocol)
    image = of_images(jax.ShapeDtypeStruct((1, *canvas, 3), np.uint8))
    lowered, runs = {}, network_runs(config, size)
    for one in {one.size: one for one in protocol.passes(size, test.protocol, config.model.align_corners)}.values():
        read, write = of_images(jax.tree.map(lambda x: x[None], (one.read, one.write)))
        window, mirrored = of_images(jax.eval_shape(test.read, image, read))
        output = of_images(jax.eval_shape(test.forward, params, statistics, window))
        scores = output.prediction
        other = scores if test.protocol.flip else None
        sums = tuple(jax.ShapeDtypeStruct((1, *canvas, last), np.float32) for last in (scores.shape[-1], 1))
        traced = {
            "read": test.read.trace(image, read),
            "forward": test.forward.trace(params, statistics, window),
            "add": test.add.trace(of_images(sums), scores, other, write, size=one.size),
        }
        passed = runs[one.size] // (2 if test.protocol.flip else 1)
        often = {"read": passed, "forward": runs[one.size], "add": passed * len(output.scores)}
        for name, function in traced.items():
            program = function.lower(lowering_platforms=("cuda",))
            lowered[f"{name} {one.size[0]}x{one.size[1]}"] = (often[name], program)
    return lowered


def network_runs(config: ConfigDict, size: tuple[int, int]) -> Counter[tuple[int, int]]:
    """How often the network runs on windows of which size in the test of an image."""
    passes = protocol.passes(size, protocol.Protocol.from_config(config.eval), config.model.align_corners)
    return Counter(one.size for one in passes for _ in range(1 + config.eval.flip))


def memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Of one GPU, in bytes; `kept` are outputs that lie where inputs lay."""
    sizes = compiled.memory_analysis()
    return {
        "arguments": sizes.argument_size_in_bytes,
        "outputs": sizes.output_size_in_bytes,
        "kept": sizes.alias_size_in_bytes,
        "temporary": sizes.temp_size_in_bytes,
    }


def normalised_elements(config: ConfigDict, size: tuple[int, int]) -> int:
    """How many numbers BatchNorms normalise of one image of this size."""
    sizes = []

    def count(_: Sequence[BatchNorm], maps: Sequence[jax.Array]) -> Sequence[jax.Array]:
        sizes.extend(x.size for x in maps)
        return maps

    model = create_model(config.model)
    model.eval()
    with mock.patch.object(layers, "normalise", count):
        jax.eval_shape(model, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
    return sum(sizes)


def show(side_by_side: list[list[Compiled]], gpu: GPU, images: float, elements: float) -> dict[str, Any]:
    """Prints all tables, of two sets of programs side by side; their numbers."""
    kernels = [
        [k._replace(times=one.times * k.times) for one in programs for k in hlo.kernels(one.text)]
        for programs in side_by_side
    ]
    alone = partial(seconds, gpu=gpu)
    for of_program in kernels:
        total = added_up(of_program, alone)
        normalising = sum(k.times * k.bytes for k in of_program if place(k) == "network, large")
        small = sum(k.times for k in of_program if k.kind in hlo.COLLECTIVES and k.bytes < LARGE)
        if small:
            print(f"{small} small messages between GPUs, {1e3 * MESSAGE * small:.1f} ms one after the other")
        print(
            f"{total.kernels} kernels, {total.bytes / 1e9:.1f} GB, {total.flop / 1e12:.2f} TFLOP, at least "
            f"{1e3 * total.floor:.2f} ms or {1e3 * total.floor / images:.2f} ms an image, "
            f"{1e3 * LAUNCH * total.kernels / images:.2f} of them launches; "
            f"{normalising / elements:.1f} bytes per normalised element"
        )
    tables = {
        "place in the program": place,
        "what they do": lambda k: k.kind,
        "convolutions": lambda k: f"{k.types} {k.detail}" if k.kind == "convolution" else None,
        "products": lambda k: f"{k.types} {place(k)}" if k.kind == "product" else None,
        "between GPUs": lambda k: f"{k.kind}, {size_of(k)}, {k.detail}" if k.kind in hlo.COLLECTIVES else None,
    }
    return {title: show_table(title, kernels, key, alone, images) for title, key in tables.items()}


def show_table(
    title: str,
    programs: list[list[Kernel]],
    key: Callable[[Kernel], str | None],
    alone: Callable[[Kernel], float],
    images: float,
) -> dict[str, list[Row]]:
    """A line for each value of `key` (None: not in this table), the longest floors first; a column for each program."""
    groups: dict[str, list[list[Kernel]]] = defaultdict(lambda: [[] for _ in programs])
    for index, kernels in enumerate(programs):
        for kernel in kernels:
            if (value := key(kernel)) is not None:
                groups[value][index].append(kernel)
    rows = {name: [added_up(kernels, alone) for kernels in group] for name, group in groups.items()}
    if rows:
        print("\n" + " |".join(["  kernels       GB   TFLOP   ms/image"] * len(programs)) + f"  {title}")
    for name, row in sorted(rows.items(), key=lambda item: -item[1][0].floor):
        cells = (
            f"{r.kernels:9d} {r.bytes / 1e9:8.2f} {r.flop / 1e12:7.3f} {1e3 * r.floor / images:10.3f}" for r in row
        )
        print(" |".join(cells) + f"  {name}")
    return rows


def added_up(kernels: list[Kernel], alone: Callable[[Kernel], float]) -> Row:
    return Row(
        sum(k.times for k in kernels),
        sum(k.times * k.bytes for k in kernels),
        sum(k.times * k.flop for k in kernels),
        sum(k.times * alone(k) for k in kernels),
    )


def seconds(kernel: Kernel, gpu: GPU) -> float:
    """The least that one launch of it takes; what GPUs send one another is not in it."""
    rate = gpu.matrix * ATTAINED["matrix"]
    if "TF32" in kernel.types and gpu.capability >= [8, 0]:
        rate /= 2
    elif "f32,f32" in kernel.types:
        rate = gpu.float32 * ATTAINED["float32"]
    return max(kernel.bytes / (gpu.bandwidth * ATTAINED["bandwidth"]), kernel.flop / rate) + LAUNCH


def place(kernel: Kernel) -> str:
    """Where in the program it is, by the scopes of its path."""
    if kernel.kind in hlo.COLLECTIVES:
        return "between GPUs"
    if kernel.kind == "convolution":
        return "convolutions"
    for scope in SCOPES:
        if re.search(rf"\b{scope}\b", kernel.path):
            return f"{scope}, products" if kernel.kind == "product" else scope
    if kernel.kind == "product":
        return "network, products"
    operation = kernel.path.rsplit("/", 1)[-1]
    if kernel.kind == "concatenation" or operation == "concatenate":
        return "network, concatenation"
    if not kernel.path:
        return "unnamed, copies" if kernel.kind == "copy" else f"unnamed, {size_of(kernel)}"
    if kernel.bytes >= LARGE and operation not in NORMALISING:
        return "network, other"
    return f"network, {size_of(kernel)}"


def size_of(kernel: Kernel) -> str:
    return "large" if kernel.bytes >= LARGE else "small"


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
