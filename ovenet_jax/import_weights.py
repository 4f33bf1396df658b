"""Published PyTorch weights -> a workdir to train from, evaluate or predict with."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ovenet_jax import described, errors, files, tables
from ovenet_jax.devices import parallel
from ovenet_jax.models import parameters, zoo
from ovenet_jax.run import identity, workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.supervision.task import task_of
from ovenet_jax.weights import hub, starting_point, torch_weights
from ovenet_jax.weights.published_names import TABLES, describe, recognise, title_of_config, why_ignored


def import_weights(config: ConfigDict, source: Path | None, folder: Path, given: Collection[str] = ()) -> None:
    """Reads the checkpoint `source` into the configured network and saves that in `folder`, with `import.json`.

    The file holds a whole network, or only a backbone (ImageNet weights), which starting_point.py completes. The report
    names the code base that wrote the file, its form of BatchNorm, the origin of every array, and the reason for every
    key that was left out. Input, resizing and activations of heads are set as the file's network was trained, except
    the keys that the command line sets, `given`. Raises UserError: no file, one that cannot be read or does not fit,
    or a folder that holds checkpoints.
    """
    config, model, report = _converted(config, source, folder, given)
    task, classes = task_of(config), None
    with suppress(errors.UserError):  # the data set's class table is missing
        if task.of_regions and len(task.classes.names) == config.model.num_classes:
            classes = task.classes
    with ExitStack() as stack:
        with parallel.all_or_none():
            if jax.process_index() == 0:
                stack.enter_context(workdir.held(folder))
                _refuse_taken(folder)  # another import may have finished in the meantime
                with files.writing(folder, "--workdir"):
                    files.write_json(folder / workdir.IMPORT_REPORT, report)
                if classes:
                    identity.write(folder, identity.Identity(classes))
                workdir.claim(folder, config)
        with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
            checkpoints.save_model(*model)
    named = f"Its arrays are named as in {report['code_base']}, with {report['batch_norm']}."
    parallel.say(f"{source} holds {report['form']}.\n{named}\n{starting_point.summary(report['arrays'])}")
    for reason, count in Counter(report["ignored"].values()).items():
        parallel.say(f"ignored: {tables.number_of(count, 'key')}, {reason}")
    parallel.say(f"Written: {folder}")


@parallel.all_or_none()
def _converted(
    config: ConfigDict, source: Path | None, folder: Path, given: Collection[str]
) -> tuple[ConfigDict, tuple[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    """The config, as the file's network was trained, its (parameters, statistics), and the report. Every process reads
    the file, because all of them save."""
    if source is None:
        raise errors.UserError("--mode=import needs the file to read: --source=FILE.pth, or hub:OWNER/NAME.")
    _refuse_taken(folder)
    task_of(config)  # counts classes
    path, _, entry = (str(source), "", "") if source.exists() else str(source).partition(":")
    path, entry, facts = hub.download(entry) if path == "hub" else (path, entry, {})
    state_dict = torch_weights.read_file(Path(path), entry)
    with Path(path).open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if (known := facts.get("sha256", checksum)) != checksum:
        fault = f"has the SHA-256 checksum {checksum}, and that of {source} is recorded as {known}"
        raise errors.UserError(f"{Path(path).resolve()} {fault}; delete that file to download it again.")
    code_base = recognise(state_dict)
    ignored = {key: reason for key in state_dict if (reason := why_ignored(key))}
    _, params, statistics = parameters.split(zoo.create_model(config.model, config.seed))
    fresh: dict[str, Any] = params | statistics
    expected, form = fresh, "a whole network"
    theirs = describe(state_dict, title := code_base.title_of(state_dict))
    backbone_only = not title and "offsets" not in theirs
    if backbone_only:
        expected = {name: value for name, value in fresh.items() if name.startswith("backbone.")}
        form = "a backbone alone, as ImageNet weights are: the starting point of a training"
    ours = describe(expected, "" if backbone_only else title_of_config(config.model.head))
    if ours != theirs:
        what = f"the file holds {theirs}, and the config makes {ours}"
        helps = "choose the config's variant of the file's network"
        raise errors.UserError(f"{source} does not fit the configured model: {what}; {helps}.")
    names = torch_weights.matched(expected, state_dict)
    _check_classes(expected, state_dict, names, source)
    in_place = sorted({names[key].partition(".")[0] for key in torch_weights.in_place_abn(state_dict) if key in names})
    fed = dict(code_base.fed)
    if not backbone_only:
        activation = "leaky_relu" if set(in_place) - {"backbone", "offset_trunk"} else "relu"  # as published
        heads = described.leaves(config.model.head.to_dict(), "head.")
        fed |= {key: activation for key, x in heads.items() if key.endswith(".activation") and x != "none"}
    config = _as_trained(config, fed, f"{source}, of {code_base.title},", given)
    loaded = torch_weights.fill(expected, torch_weights.fold_in_place_abn(state_dict), str(source))
    offered = starting_point.Source(source.name, loaded, config.model.head)
    arrays, origins = starting_point.take_over(fresh, config.model.head, offered)

    folded = f"in-place ABN in {' and '.join(in_place)}: scales are |weight| + {torch_weights.ABN_EPS}"
    norm = folded if in_place else "plain BatchNorm"
    report: dict[str, Any] = facts | {"source": str(source), "sha256": checksum, "ignored": ignored, "batch_norm": norm}
    report |= {"code_base": code_base.title, "form": form, "input": config.model.input.to_dict(), "arrays": origins}
    return config, ({n: arrays[n] for n in params}, {n: arrays[n] for n in statistics}), report


def from_hub(config: ConfigDict, folder: Path) -> None:
    """Imports the weights that `config.init` names on the hub to where the new run `folder` takes them from, unless an
    earlier start has done that. Raises UserError as `import_weights` does."""
    for role, place in hub.located(config, folder).init.items():
        wanted = place != config.init[role] and not any(map(workdir.has_checkpoint, (folder, Path(place))))
        if parallel.gather(wanted)[0]:  # process 0 decides: others may see its files later
            import_weights(config, Path(config.init[role]), Path(place), described.leaves(config.to_dict()))


def _refuse_taken(folder: Path) -> None:
    if workdir.has_checkpoint(folder) or workdir.is_run(folder):
        raise errors.UserError(f"{folder} holds a run or an import already; choose another --workdir.")


def _check_classes(ours: Mapping[str, Any], theirs: Mapping[str, Any], names: Mapping[str, str], source: Path) -> None:
    """Whether both networks have as many classes. names: key of `theirs` -> name of `ours`."""
    for key, name in names.items():
        if starting_point.PER_CLASS.match(name) and len(theirs[key]) != ours[name].shape[-1]:
            what = f"it has {len(theirs[key])} classes in {key}, and the config makes {ours[name].shape[-1]}"
            raise errors.UserError(f"{source} does not fit the configured model: {what}; choose a config of its data.")


def _as_trained(config: ConfigDict, fed: dict[str, Any], title: str, given: Collection[str]) -> ConfigDict:
    """`config` with the values of `fed`, by the keys of config.model; prints what differs. Keys in `given` are kept,
    and so is an input that no code base has, such as one of own data."""
    values = described.leaves(config.to_dict())
    other = {f"model.{key}": x for key, x in fed.items() if values[f"model.{key}"] != x}
    published = {key: values[f"model.{key}"] for key in TABLES["inputs"][0]} in TABLES["inputs"]
    follows = {k: x for k, x in other.items() if k not in given and (published or not k.startswith("model.input."))}
    keeps = {key: x for key, x in other.items() if key not in follows}
    for what, differing in (("the import follows it", follows), ("the config says otherwise and is kept", keeps)):
        if differing:
            flags = " ".join(f"--config.{key}={x}".replace(" ", "") for key, x in differing.items())
            parallel.say(f"Note: {title} was trained with {flags}; {what}.")
    return described.nested(values | follows)
