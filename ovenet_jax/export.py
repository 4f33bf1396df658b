"""Exports a trained network: as a state dict in its published form, or as a program for jax alone or for ONNX."""

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import jinja2
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from ovenet_jax import described, files, tables
from ovenet_jax.data import pipeline
from ovenet_jax.devices.memory import EVALUATION_MEMORY, enough_memory
from ovenet_jax.errors import UserError
from ovenet_jax.models import layers, parameters
from ovenet_jax.models.normalisation import Normalisation, images_of
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.run import identity, workdir
from ovenet_jax.supervision.measures import class_scores, confusion_matrix
from ovenet_jax.supervision.task import Task, task_of
from ovenet_jax.weights import hub, published_keys, published_names, torch_weights
from ovenet_jax.weights.network import restore_network

# uint8 RGB images [B, H, W, 3], or uint16 [B, H, W, C] of named channels -> label maps uint8 [B, H, W], and the
# network's scores float32 [B, H, W, K].
Program = Callable[[Any], tuple[jax.Array, jax.Array]]


def export(config: ConfigDict, folder: Path, form: str | None) -> None:
    """Writes the network of the run or import in `folder` to `folder`/export/<form>/network.*, with `export.json`.

    torch, safetensors: a state dict with the names of the code base that published the architecture. hub: the latter,
    with config, classes and a card, as a folder for the Hugging Face hub that `ovenet_jax.load` reads, too. stablehlo:
    a `Program` for images of the size config.eval.window, in a single pass without scales or flip. onnx: the same for
    any size. The file is read back, evaluated on config.data.eval_split (a state dict in our network, ONNX in
    onnxruntime) and compared with the network itself; the folder appears after that. Raises UserError: an unknown form,
    a form whose package is not installed or whose folder exists; no run, no checkpoint, or that of another model; an
    architecture that no published code base has names for, or that ONNX cannot hold.
    """
    if form not in FORMS:
        given = f"--form={form}" if form else "--form is missing"
        raise UserError(f"{given}: it must be one of {', '.join(FORMS)}.")
    write, name, *packages = FORMS[form]
    for package in packages:
        if find_spec(package) is None:
            helps = f"`pip install {package}`, or ovenet_jax with its extra [{form}]"
            raise UserError(f"--form={form} needs the package {package}: {helps}.")
    if form == "onnx" and config.eval.precision != "float32":
        raise UserError("--form=onnx computes in float32; leave out config.eval.precision, or set it to float32.")
    if jax.process_count() > 1:
        raise UserError("--mode=export is the work of one process; leave out --processes.")
    target = folder / "export" / form
    files.refuse_existing(target, "")
    task = task_of(config, identity.classes_of(folder))
    workdir.note_differences(folder, config)
    task.prepare()
    network = restore_network(config.model, folder, config.eval.checkpoint)
    ours = partial(_program(network.graphdef, config, task), *jax.device_get((network.params, network.statistics)))
    size = tuple(config.eval.window)
    with files.new_folder(target, "") as unfinished:
        found = _compare(write(ours, network.step, config, unfinished / name), ours, task, config)
        what = {"form": form, "step": network.step, "image": size, "jax": jax.__version__}
        what |= {"classes": task.classes.names, "colors": task.classes.colors, "input": config.model.input.to_dict()}
        files.write_json(unfinished / "export.json", what | found)
        if form == "hub":
            _describe(unfinished, folder, config, what | found)
    names = f", named as in {published_keys.code_base_of(config.model).title}" if write is _write_state_dict else ""
    print(
        f"mIoU {tables.percent(found['miou'])}, of the network itself {tables.percent(found['network_miou'])}, on "
        f"{config.data.eval_split} at {size[0]}x{size[1]}; {found['milliseconds']:.1f} ms an image; scores differ by "
        f"{found['largest_error']:.2g} at most, the largest score is {found['largest_score']:.2g}.\n"
        f"Written, read back and run: {target / name}{names}."
    )


def _program(graphdef: nnx.GraphDef, config: ConfigDict, task: Task) -> Callable:
    """A `Program` with the network's parameters and statistics as its first arguments."""
    normalisation, align_corners = Normalisation.from_config(config.model.input), config.model.align_corners

    @jax.jit
    def program(params: Arrays, statistics: Arrays, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        model = parameters.merge(graphdef, params, statistics)
        output = model(normalisation(image).astype(config.eval.precision))
        scores = layers.at_least_float32(list(output.predictions.values())[-1])
        scores = layers.resize_bilinear(scores, image.shape[1:3], align_corners=align_corners)
        return task.class_map(scores), scores

    return program


def _write_stablehlo(ours: Program, _: int, config: ConfigDict, file: Path) -> Program:
    """Writes the program to `file`. Returns the program that the file holds."""
    (batch,) = jax.export.symbolic_shape("batch")
    image = images_of(config.model.input, batch, *config.eval.window)
    exported = jax.export.export(jax.jit(ours), platforms=("cpu", "cuda"))(image)
    file.write_bytes(exported.serialize())
    return jax.jit(jax.export.deserialize(bytearray(file.read_bytes())).call)


def _write_onnx(ours: Program, _: int, config: ConfigDict, file: Path) -> Program:
    """Writes the program for images of any size to `file`, simplified by onnxruntime. Returns the program that the file
    holds, on CPUs. Raises UserError: ONNX cannot hold it."""
    import onnxruntime

    from ovenet_jax.models import onnx_graph

    try:
        graph = onnx_graph.model_of(ours, partial(images_of, config.model.input))
    except (NotImplementedError, jax.errors.InconclusiveDimensionOperation) as error:
        reason = error if isinstance(error, NotImplementedError) else "what it computes depends on their size"
        title = published_names.title_of_config(config.model.head)
        fault = f"A network with {title} cannot be an ONNX program for images of any size ({reason})"
        raise UserError(f"{fault}; --form=stablehlo exports any network.") from error
    simplify = onnxruntime.SessionOptions()
    simplify.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    simplify.optimized_model_filepath = str(file)
    start = partial(onnxruntime.InferenceSession, providers=["CPUExecutionProvider"])
    start(graph.SerializeToString(), simplify)
    session = start(file)
    return lambda image: session.run(None, {"image": image})


def _write_state_dict(ours: partial, step: int, config: ConfigDict, file: Path) -> Program:
    """Writes the arrays as a state dict to `file`. Returns the network's program with those read back from it. Raises
    UserError where any of them has changed."""
    params, statistics = ours.args
    arrays = params | statistics
    published = {k: np.array(x, order="C") for k, x in published_keys.state_dict(config.model, arrays, step).items()}
    if file.suffix == ".pth":
        import torch

        torch.save({key: torch.from_numpy(value) for key, value in published.items()}, file)
    else:
        from safetensors.numpy import save_file

        save_file(published, file)
    read = torch_weights.fold_in_place_abn(torch_weights.read_file(file))
    found = torch_weights.fill(arrays, read, str(file))
    # All are equal, but scales of in-place ABN may differ in their last bit.
    bits = {name: name.endswith("norm.scale") * np.finfo(np.float32).eps for name in arrays}
    if lost := [x for x, value in arrays.items() if not np.allclose(found[x], value, rtol=bits[x], atol=0)]:
        raise UserError(f"{file} gives back {len(lost)} of {len(arrays)} arrays otherwise; the first: {lost[0]}.")
    return partial(ours.func, *({name: found[name] for name in part} for part in ours.args))


def _describe(target: Path, folder: Path, config: ConfigDict, facts: dict[str, Any]) -> None:
    """Writes config, classes and card beside the weights of the run `folder`; without paths of this machine."""
    values = described.leaves(config.to_dict())
    paths = {key: x for key, x in values.items() if isinstance(x, str) and Path(x).is_absolute()}
    workdir.claim(target, described.nested(values | {key: Path(x).name for key, x in paths.items()}))
    if known := identity.read(folder):
        identity.write(target, identity.Identity(known.classes))
    places = folder, *map(Path, filter(None, config.init.values()))
    reports = sorted({report for place in places for report in place.rglob(workdir.IMPORT_REPORT)})
    sources = [files.read_json(report, {"source": str}, "import those weights again") for report in reports]
    template = (Path(__file__).parent / "weights/card.md.j2").read_text()
    card = jinja2.Template(template, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    head = published_names.title_of_config(config.model.head)
    files.write(target / "README.md", card.render(facts, config=config, head=head, sources=sources))


@enough_memory(EVALUATION_MEMORY)
def _compare(theirs: Program, ours: Program, task: Task, config: ConfigDict) -> dict[str, Any]:
    """mIoU of both programs on the evaluation split, resized to config.eval.window; of `theirs` IoU of each class and
    milliseconds per image; the number of images, the largest difference of scores, and the largest absolute score."""
    source, size, count = task.open_evaluation(), tuple(config.eval.window), config.model.num_classes
    matrices, seconds, error, largest = np.zeros((2, count, count), np.int64), [], 0.0, 0.0
    blank = images_of(config.model.input, 1, *size)
    jax.block_until_ready(theirs(np.zeros(blank.shape, blank.dtype)))  # compiles
    reading = {"short_side": config.eval.short_side, "workers": config.data.workers}
    with pipeline.samples(source, range(len(source)), **reading) as samples:
        for sample in tqdm(samples, "running it", len(source), unit=" images", mininterval=1, leave=False):
            image = cv2.resize(sample["image"], size[::-1])[None]
            label = cv2.resize(sample["label"], size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            started = time.perf_counter()
            answers = [jax.block_until_ready(theirs(image))]
            seconds.append(time.perf_counter() - started)
            answers.append(ours(image))
            error = float(np.maximum(error, jnp.abs(answers[0][1] - answers[1][1]).max()))  # NaN stays NaN
            largest = max(largest, float(jnp.abs(answers[1][1]).max()))
            for matrix, (class_map, _) in zip(matrices, answers, strict=True):
                matrix += np.asarray(confusion_matrix(label, class_map[0], count))
    if not np.isfinite(error):
        raise UserError("Some scores of the exported network are not finite, so the export was discarded.")
    own, network = map(class_scores, matrices)
    found = {"miou": own["miou"], "network_miou": network["miou"], "iou": own["iou"].tolist()}
    found |= {"milliseconds": 1000 * float(np.median(seconds)), "images": len(source)}
    return found | {"largest_error": error, "largest_score": largest}


FORMS: dict[str, tuple] = {  # the function that writes it, its file, and the packages that writing and running it take
    "torch": (_write_state_dict, "network.pth", "torch"),
    "safetensors": (_write_state_dict, "network.safetensors", "safetensors"),
    "hub": (_write_state_dict, hub.FILES[0], "safetensors"),
    "stablehlo": (_write_stablehlo, "network.stablehlo"),
    "onnx": (_write_onnx, "network.onnx", "onnx", "onnxruntime"),
}
