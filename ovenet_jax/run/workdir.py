"""A run's folder belongs to one config, saved in it as `config.json`."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ovenet_jax import described, files
from ovenet_jax.configs.keys import FREE
from ovenet_jax.errors import UserError

HOLDER = ".holder"  # the lock file: host, process id, start time and kernel of its holder, one per line; or empty
KERNEL = Path("/proc/sys/kernel/random/boot_id")  # one for all containers of a machine, whose host names differ
IMPORT_REPORT = "import.json"  # in a folder that holds imported weights, not a run
WEIGHTS = "model.safetensors"  # in one that --form=hub has written


def check(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError where `workdir` holds weights of an import or export, or checkpoints of another config's run."""
    if (workdir / IMPORT_REPORT).exists() or ((workdir / WEIGHTS).exists() and not has_checkpoint(workdir)):
        remedy = f"train from them with --config.init.base={workdir} and another --workdir"
        raise UserError(f"{workdir} holds weights, not a run; {remedy}.")
    saved = read_config(workdir)
    if saved is not None and has_checkpoint(workdir) and (found := differences(saved, config, FREE)):
        listed = "; ".join(f"{key} is {there!r} in the run and {here!r} now" for key, there, here in found[:5])
        remedy = "resume it with its own config, or choose another --workdir"
        if any(key == "steps" for key, *_ in found):
            remedy += f"; to train longer add --config.init.base={workdir}, which starts from its best network"
        raise UserError(f"{workdir} holds the run of another config ({listed}); {remedy}.")


def has_checkpoint(workdir: Path) -> bool:
    """Whether there is a complete checkpoint."""
    return any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))


def is_run(workdir: Path) -> bool:
    """Whether the folder belongs to a training, not to an import."""
    return (workdir / "config.json").exists() and not (workdir / IMPORT_REPORT).exists()


def claim(workdir: Path, config: ConfigDict) -> None:
    """Saves the config in `workdir`. Raises UserError where it cannot."""
    with files.writing(workdir, "--workdir"):
        files.write_json(workdir / "config.json", config.to_dict())


@contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Keeps other trainings and imports out of `workdir` during the `with`, by a file lock that the system releases
    when this process ends. Where locks are unsupported or not shared between hosts, the lock file's content decides.
    Raises UserError: another process, which it names, holds the folder; or `workdir` cannot be written."""
    file, here = workdir / HOLDER, socket.gethostname()
    kernel = KERNEL.read_text().strip() if KERNEL.exists() else here
    with files.writing(workdir, "--workdir"):
        files.make_folder(workdir)
        opened = file.open("a+b")
    with opened:
        opened.seek(0)
        host, process, since, its_kernel, *_ = *opened.read().decode(errors="replace").split("\n"), "", "", ""
        alive = False
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alive = True
        except OSError:  # no locks here
            alive = host == here and process.isdigit() and Path(f"/proc/{process}").exists()
            its_kernel = ""  # processes of other containers cannot be seen
        if alive or (host not in ("", here) and its_kernel != kernel):
            ended = "" if alive else f", or delete {file} if that has ended"
            who = f"process {process} on {host}, since {since}," if process else "another process"
            remedy = f"wait for its end{ended}, or choose another --workdir"
            raise UserError(f"{workdir} is held by {who} which trains or imports there; {remedy}.")
        with files.writing(workdir, "--workdir"):
            opened.truncate(0)
            opened.write(f"{here}\n{os.getpid()}\n{time.strftime('%Y-%m-%d %H:%M:%S')}\n{kernel}".encode())
            opened.flush()
        try:
            yield
        finally:
            opened.truncate(0)


def note_differences(workdir: Path, config: ConfigDict, keys: tuple[str, ...] = ("model.", "data.")) -> None:
    """Prints where the config's values under these keys differ from those of the training, but takes over a measured
    input. Raises UserError: no run in the folder, or one of another data set if "data." is among the keys."""
    from ovenet_jax.devices import parallel  # imports jax, which main.py sets up after it has read a run's config

    saved = config_of(workdir)
    if saved.model.input.get("channels") and "model." in keys:
        config.model.input = saved.model.input
    for key, there, here in differences(saved, config, FREE):
        if not key.startswith(keys):
            continue
        if key == "data.name":
            raise UserError(f"{workdir} was trained on {there!r}, not on {here!r}; use a config of that data set.")
        parallel.say(f"Note: config.{key} is {here!r}; {workdir} was trained with {there!r}.")


def config_of(workdir: Path) -> ConfigDict:
    """The config of the run or import in `workdir`. Raises UserError where there is neither."""
    if (config := read_config(workdir)) is None:
        remedy = "name the folder of a training or an import, or train first"
        raise UserError(f"{workdir} holds no run (no config.json); {remedy}.")
    return config


def read_config(workdir: Path) -> ConfigDict | None:
    """The config saved in the folder, `described.resolved` because an older version may have written it; or None.
    Raises UserError where it is damaged."""
    file = workdir / "config.json"
    if not file.exists():
        return None
    remedy = "choose another --workdir, or move that file away if the folder's checkpoints are of this config"
    content = files.read_json(file, {"model": dict, "data": dict}, remedy)
    try:
        return described.resolved(ConfigDict(content, allow_dotted_keys=True))
    except UserError as error:
        raise UserError(f"{file} is damaged: {str(error).rstrip('.')}; {remedy}.") from error


def differences(saved: ConfigDict, config: ConfigDict, ignored: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    """(key, saved value, config's value) of leaves that differ; tuples equal lists. Left out: keys that begin with one
    of `ignored`, keys without effect, and keys of another version (not in the table of keys) whose value is falsy."""
    there, here = (json.loads(json.dumps(described.completed(c))) for c in (saved, config))
    keys = [key for key in sorted(there | here) if not key.startswith(ignored)]
    values = [(key, there.get(key, "absent"), here.get(key, "absent")) for key in keys]
    return [(key, a, b) for key, a, b in values if a != b and not ("absent" in (a, b) and not (a and b))]
