"""Initialises a network from trained ones, matching arrays by name.

As published (MODEL.PRETRAINED, and for frozen training two files):

- backbone: from `base`. The first convolution by the names of channels: the kernels of others are the mean of all, and
  all are scaled so that their expected sum stays, as timm scales those it repeats (`adapt_input_conv`).
- head: from `base`, if it has the same head and that is trained. A plain head (HRNet's `last_layer`) initialises the
  auxiliary head of another head, if the widths agree (OCR in HRNet's own form). The last layers are copied class by
  class, by name, if the classes of both are known; otherwise only if the number of classes is equal.
- offset trunk and offset head: from `trunk`, if given; else from `base`, if it has them. Else the offset head stays as
  initialised, and the trunk's transitions and first modules of each stage (ResNet: first blocks of the last layers) are
  copied from the backbone where the shapes agree.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from ovenet_jax import errors, files, tables
from ovenet_jax.data.labels import COLORS
from ovenet_jax.devices import parallel
from ovenet_jax.models import parameters
from ovenet_jax.run import identity, workdir
from ovenet_jax.weights import network
from ovenet_jax.weights.published_names import title_of_config

Arrays = Mapping[str, Any]  # numpy or jax arrays by name
Offers = dict[str, tuple[Any, str]]  # name -> an array and its origin

INITIALISED = "initialised"
FIRST = "backbone.conv1.conv.kernel"  # [h, w, C, features]
OFFSET_PARTS = ("offset_trunk.", "offset_head.")
HEAD_PARTS = ("head.", "boundary_head.", "direction_head.")
# Keys that a training should share with the imported weights it starts from: input, resizing, activations.
FED = ("model.input.", "model.align_corners", "model.head.activation", "model.head.aux.activation")
# Arrays whose last axis is the class, or direction.
PER_CLASS = re.compile(r"^(head\.(classifier|aux)|direction_head)\.(output\.)?(kernel|bias)$")


class Source(NamedTuple):
    """A trained network's arrays by name.

    title: its name in messages. head: its config.model.head. untrained: its arrays that were never trained. classes:
    their names, if known.
    """

    title: str
    arrays: Arrays
    head: ConfigDict
    untrained: frozenset[str] = frozenset()
    classes: tuple[str, ...] = ()


def start_from(
    model: nnx.Module, config: ConfigDict, frozen: Sequence[str] = (), classes: Sequence[str] = ()
) -> nnx.Module:
    """Initialises `model` from the workdirs in `config.init` and prints the origin of its arrays, and where input,
    resizing or activation differ from the base's. classes: its class names. Raises UserError: a folder without a
    checkpoint, or with a network that does not fit; untrained arrays in `frozen` parts."""
    graphdef, params, statistics = parameters.split(model)
    base = _restore("base", config.init.base, config)
    trunk = _restore("trunk", config.init.trunk, config) if config.init.get("trunk") else None
    arrays, origins = take_over(params | statistics, config.model.head, base, trunk, classes)
    parallel.say(summary(origins))
    workdir.note_differences(Path(config.init.base), config, FED)
    if untrained := [n for n, o in origins.items() if n.split(".")[0] in frozen and o.startswith(INITIALISED)]:
        fault = f"would freeze arrays that {base.title} has not trained: {len(untrained)}; the first: {untrained[0]}"
        helps = "set config.init.base to a trained network with the same head and classes"
        raise errors.UserError(f"config.freeze_base {fault}; {helps}.")
    return parameters.merge(graphdef, {n: arrays[n] for n in params}, {n: arrays[n] for n in statistics})


def _restore(role: str, folder: str, config: ConfigDict) -> Source:
    try:
        settings = workdir.config_of(Path(folder)).model
        _, params, statistics = parameters.split(network.load_model(folder))
    except errors.UserError as error:
        raise errors.UserError(f"config.init.{role}: {error}") from error
    imported = Path(folder) / workdir.IMPORT_REPORT
    origins = {}
    if imported.exists():
        origins = files.read_json(imported, {"arrays": {str: str}}, "import the weights again")["arrays"]
    untrained = frozenset(name for name, origin in origins.items() if origin.startswith(INITIALISED))
    known = identity.read(Path(folder))
    classes = known.classes.names if known else ()
    arrays = jax.device_get(params | statistics)
    inputs = config.model.input, settings.input
    ours, theirs = (tuple(x.get("channels", ())) or COLORS[:: -1 if x.bgr else 1] for x in inputs)
    if ours != theirs and (inputs[0].get("channels") or inputs[1].get("channels")):
        kernel = arrays[FIRST]
        chosen = [kernel[:, :, theirs.index(x)] if x in theirs else kernel.mean(2) for x in ours]
        arrays[FIRST] = np.stack(chosen, 2) * np.float32(len(theirs) / len(ours))
    return Source(folder, arrays, settings.head, untrained, classes)


def take_over(
    fresh: Arrays, head: ConfigDict, base: Source, trunk: Source | None = None, classes: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of a `fresh` network, replaced by those that `base` and `trunk` offer, and the origin of each as text.

    head: of the network's config.model. classes: its class names, if known.

    Raises UserError: lists arrays of the backbone, or of offset parts if offered, that only one of the networks has,
    and shapes that differ by more than the number of classes.
    """
    head_offers, why_not = _head(fresh, head, base)
    offers = _part(base, "backbone.") | head_offers
    whole: tuple[str, ...] = ("backbone.",)  # parts that have to agree in every array
    copied = f"copied from the backbone of {base.title}"
    if any(name.startswith(OFFSET_PARTS) for name in fresh):
        own = _part(trunk or base, *OFFSET_PARTS)
        if trunk and not own:
            helps = "name the folder of an OVeNet, or leave config.init.trunk empty"
            raise errors.UserError(f"{trunk.title} has no offset trunk; {helps}.")
        twins = {n: n.replace("offset_trunk.", "backbone.trunk.") for n in fresh if n.startswith(OFFSET_PARTS)}
        offers |= own or {n: (base.arrays[x], copied) for n, x in twins.items() if x in base.arrays}
        whole += OFFSET_PARTS if own else ()

    arrays, origins = dict(fresh), dict.fromkeys(fresh, INITIALISED)
    if why_not:
        origins |= {name: f"{INITIALISED}: {why_not}" for name in fresh if name.startswith(HEAD_PARTS)}
    titles = " and ".join({source.title: None for source in (base, trunk) if source})
    problems = [f"{name} is not in {titles}" for name in fresh.keys() - offers.keys() if name.startswith(whole)]
    if classes and base.classes and tuple(classes) != base.classes:
        for name in head_offers.keys() & fresh.keys():
            if name.startswith("head.") and PER_CLASS.match(name):
                offers[name] = _by_name(*offers[name], base.classes, fresh[name], classes)
    for name, (array, origin) in offers.items():
        title = (trunk if trunk and name.startswith(OFFSET_PARTS) else base).title
        if name not in fresh:
            if name.startswith(whole):
                problems.append(f"{name} of {title} is not in the model")
        elif array.shape == fresh[name].shape:
            arrays[name], origins[name] = array, origin
        elif origin == copied:
            origins[name] = f"{INITIALISED}: the backbone of {title} has another shape"
        elif PER_CLASS.match(name) and array.shape[:-1] == fresh[name].shape[:-1]:
            origins[name] = f"{INITIALISED}: {title} has another number of classes"
        else:
            problems.append(f"{name} has shape {array.shape} in {title} and {fresh[name].shape} in the model")
    if problems:
        count = tables.number_of(len(problems), "problem")
        fault = f"{titles} cannot be a starting point of the configured model ({count})"
        raise errors.UserError(f"{fault}; compare the model part of the configs:{errors.listed(sorted(problems))}")
    return arrays, origins


def _by_name(
    offered: Any, origin: str, theirs: Sequence[str], fresh: Any, ours: Sequence[str]
) -> tuple[np.ndarray, str]:
    """Copies the entries of classes with equal names; the others keep the values of `fresh` [..., K]."""
    if offered.shape != (*fresh.shape[:-1], len(theirs)):
        return offered, origin
    found, array = [name for name in ours if name in theirs], np.array(fresh)
    for name in found:
        array[..., ours.index(name)] = offered[..., theirs.index(name)]
    if len(found) < len(ours):
        return array, f"{INITIALISED} except {len(found)} of {len(ours)} classes, {origin}"
    return array, f"{origin}, by the names of its classes"


def summary(origins: Mapping[str, str]) -> str:
    """One line per part of the network and origin: 'backbone: 1530 arrays loaded from hrnet.pth'."""
    counts = Counter((name.partition(".")[0], origin) for name, origin in origins.items())
    return "\n".join(f"{part}: {tables.number_of(count, 'array')} {origin}" for (part, origin), count in counts.items())


def _part(source: Source, *prefixes: str) -> Offers:
    loaded, untrained = f"loaded from {source.title}", f"{INITIALISED} in {source.title}"
    origin = {name: untrained if name in source.untrained else loaded for name in source.arrays}
    return {name: (array, origin[name]) for name, array in source.arrays.items() if name.startswith(prefixes)}


def _head(fresh: Arrays, head: ConfigDict, base: Source) -> tuple[Offers, str]:
    """The trained arrays of the head in `base`, or {} and the reason."""
    if not (offers := {name: x for name, x in _part(base, *HEAD_PARTS).items() if name not in base.untrained}):
        return {}, ""
    plain, aux = "head.classifier.hidden.conv.kernel", "head.aux.hidden.conv.kernel"
    becomes_aux = plain in offers and aux not in offers and aux in fresh and plain not in fresh
    if becomes_aux and offers[plain][0].shape == fresh[aux].shape:
        loaded = f"loaded from the plain head of {base.title}"
        return {name.replace("head.classifier.", "head.aux."): (x, loaded) for name, (x, _) in offers.items()}, ""
    theirs = title_of_config(base.head)
    if theirs != title_of_config(head):
        return {}, f"{base.title} has another head, {theirs}"
    return offers, ""
