"""OVeNet and its family: python main.py --config=configs/camvid.py:ovenet_tiny [--workdir=DIR] [--mode=MODE].

The package has this file as `__main__`: the command `ovenet` and `python -m ovenet_jax` are the same.
"""

import signal

if __name__.endswith("__main__") and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `errors.run`, Ctrl-C ends it without a stack trace

import re
import sys
from collections import Counter
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ovenet_jax import described, errors, files
from ovenet_jax.devices import environment
from ovenet_jax.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED, UserError
from ovenet_jax.run import processes, workdir

# jax and what needs it is imported in `main` only, so that a mistake in the flags is answered at once.

CONFIGS = Path(__file__).parent / "configs"
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file FILE.py[:variant], or NAME[:variant] of a file in configs/.", lock_config=True
)
MODES = {
    "train": "prepares the data if needed, trains or continues, evaluates (default)",
    "evaluate": "tests the best checkpoint on config.data.eval_split",
    "predict": "writes label maps and overlays of --source, or of config.data.test_split",
    "browse": "writes augmented training samples as pictures",
    "report": "writes the report of the best checkpoint again",
    "export": "writes the network for other programs, in --form",
    "config": "prints every key of the config with its value and meaning, and what differs from configs/",
    "plan": "estimates whether the training fits --devices, its largest batch, images/s, hours and what data it needs",
    "prepare": "checks and prepares the data",
    "import": "reads published PyTorch weights, --source, into --workdir",
    "compare": "compares the runs --source=DIR,DIR,...",
    "env": "prints versions, devices and settings of this machine, for a report of a bug",
}
NO_RUN = ("prepare", "import")  # they require --config; without it the others use that of the (first) run
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "One of the modes above.")
SOURCE = flags.DEFINE_string(
    "source", None, "import: FILE or FILE:ENTRY; predict: an image or a folder of them; compare: DIR,DIR,..."
)
FORM = flags.DEFINE_string("form", None, "export: torch, safetensors, hub, stablehlo or onnx.")
OUT = flags.DEFINE_string("out", None, "predict: the new folder; default: WORKDIR/predictions/<name>.")
DEVICES = flags.DEFINE_string("devices", None, "plan: COUNTxNAME, as 8xh200; default: this machine's GPUs.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; default: runs/<config.name>.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, with several processes.")
PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes; 1: alone, also in a cluster.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "Index of this process, from 0.")
WAIT = flags.DEFINE_float("wait", 300, "Seconds to wait for the other processes.")

MESSAGES = {  # type errors of absl and ml_collections -> our wording
    r"invalid literal for int.*": "it must be a whole number",
    r"could not convert string to float.*": "it must be a number",
    r"\('Non-boolean argument.*": "it must be true or false",
}


def main(_: list[str]) -> int | None:
    if MODE.value == "env":
        environment.prepare()
        from ovenet_jax import env

        return print(env.as_text())
    given = config_flags.get_override_values(flags.FLAGS["config"])
    config = described.resolved(CONFIG.value, given)
    if MODE.value == "config":
        return print(described.as_text(config))
    environment.prepare(config.deterministic)
    logging.set_verbosity(logging.FATAL)  # what libraries log as errors, they raise, too
    task = {flag.name: flag.value for flag in (MODE, SOURCE, OUT, WORKDIR)} | {"config": config.to_dict()}
    with errors.ending_at_once():
        processes.start(COORDINATOR.value, PROCESSES.value, PROCESS.value, WAIT.value, task)  # before jax is used

        from ovenet_jax import browse, compare, evaluate, export, import_weights, plan, predict, train
        from ovenet_jax.data import inventory
        from ovenet_jax.devices import parallel
        from ovenet_jax.supervision.task import task_of
    parallel.devices()  # a UserError where there are none

    overrides = [argument for argument in sys.argv[1:] if argument.lstrip("-").startswith(("config.", "noconfig."))]
    if not flags.FLAGS["config"].present:
        run = _run_of(MODE.value, SOURCE.value, WORKDIR.value)
        parallel.say(f"Using the config of {run}{', with ' + ' '.join(overrides) if overrides else ''}.")
    folder = Path(WORKDIR.value or Path("runs") / config.name)
    source, out = (Path(flag.value) if flag.value else None for flag in (SOURCE, OUT))
    if MODE.value == "train":
        import_weights.from_hub(config, folder)
    actions = {
        "train": lambda: EXIT_DONE if train.train(config, folder) else EXIT_INTERRUPTED,
        "evaluate": lambda: evaluate.evaluate(config, folder),
        "report": lambda: evaluate.evaluate(config, folder, anew=False),
        "predict": lambda: EXIT_DONE if predict.predict(config, folder, source, out) else EXIT_INCOMPLETE,
        "compare": lambda: compare.compare(config, SOURCE.value, folder),
        "plan": lambda: parallel.say(plan.plan(config, DEVICES.value)),
        "prepare": lambda: parallel.say(inventory.as_text(task_of(config).prepare())),
        "browse": lambda: browse.browse(config, folder),
        "export": lambda: export.export(config, folder, FORM.value),
        "import": lambda: import_weights.import_weights(config, source, folder, given),
    }
    return actions[MODE.value]()


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses flags by absl; errors of absl and ml_collections become UserErrors.

    Expands a leading ~ in values of flags and of the config.
    """
    names = [found[1] for a in arguments if (found := re.match(r"--?(?:no(?=config\.))?([a-z][\w.]*)", a))]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"--{name} is given {count} times; give it once.")
    at_home = re.compile("(?<=[=,])~[^,]*")
    try:
        given = [at_home.sub(lambda path: files.at_home(path[0]), a) for a in _with_config_file(arguments)]
        if any(argument.startswith(("-h", "--h", "-?", "--?")) for argument in given):
            print(_help())
            sys.exit()
        _find_config(given)
        remaining = flags.FLAGS(given)
        config = {} if MODE.value == "env" else CONFIG.value.to_dict()  # a file that fails to load raises here
        for key, value in described.leaves(config).items():
            if isinstance(value, str) and value.startswith("~"):
                CONFIG.value.update_from_flattened_dict({key: files.at_home(value)})
        if len(remaining) > 1:
            raise UserError(f"{remaining[1]!r} is not a flag; flags are written --name=value, see README.md.")
    except OSError as error:
        raise UserError(f"--config cannot be loaded: {' '.join(str(error).split())}") from error
    except flags.Error as error:
        sentence = " ".join(str(error).split()).rstrip(".").removeprefix("flag ")
        for pattern, message in MESSAGES.items():
            sentence = re.sub(pattern, message, sentence)
        raise UserError(f"{sentence}; --help lists all flags.") from error
    except UserError:
        raise
    except Exception as error:  # raised by code of the config file, or by an unknown key
        if getattr(error, "name", None) == "get_config":
            raise UserError(
                "--config is a file without get_config; define get_config(variant), which returns the config."
            ) from error
        if isinstance(error, AttributeError | KeyError) and (absent := re.search(r"\w+", str(error))):
            keys = (name.removeprefix("config.") for name in names if name.startswith("config."))
            for key in keys:
                if absent[0] in key.split("."):
                    raise UserError(described.unknown(key)) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"--config cannot be loaded ({reason}); fix that file, or the keys given with it.") from error
    return remaining


def _with_config_file(arguments: list[str]) -> list[str]:
    """The arguments with the name of a config replaced by its file. Raises UserError: an unknown name, no such file."""
    result = list(arguments)
    for i, argument in enumerate(arguments):
        given = re.fullmatch(r"(--?config=|)(\w+|.*\.py)(:.*)?", argument)
        if given and (given[1] or arguments[i - 1] in ("--config", "-config")):
            name, known = given[2], _configs()
            if name in known:
                result[i] = f"{given[1]}{CONFIGS / name}.py{given[3] or ''}"
            elif not Path(files.at_home(name)).is_file():
                kind = "config file" if name.endswith(".py") else "config"
                similar = errors.nearest(Path(name).stem, {name: name for name in known})
                listed = f"known: {', '.join(known)}; or give a file, --config=FILE.py"
                raise UserError(f"There is no {kind} {name!r}{similar}; {listed}.")
    return result


def _configs() -> list[str]:
    """The names of the configs in configs/."""
    return sorted(path.stem for path in CONFIGS.glob("[a-z]*.py") if "\ndef get_config(" in path.read_text())


def _run_of(mode: str, source: str | None, folder: str | None) -> str | None:
    """The folder of the run whose config is used: --workdir, or the first of those to compare."""
    return (source or "").partition(",")[0].strip() if mode == "compare" else folder


def _find_config(arguments: list[str]) -> None:
    """Uses the config of the run in --workdir, or of the first of those to compare, if --config is missing.

    Raises:
      UserError: no such config, or the mode requires --config.
    """
    given = flags.FlagValues()
    for name, default in (("config", None), ("workdir", None), ("mode", "train"), ("source", None)):
        flags.DEFINE_string(name, default, "", flag_values=given)
    given(arguments, known_only=True)
    if given.config is not None or given.mode == "env":
        return
    wanted = "--config is missing: give one, as --config=configs/camvid.py"
    if given.mode in NO_RUN:
        raise UserError(f"{wanted}; --mode={given.mode} requires it.")
    run = _run_of(given.mode, given.source, given.workdir)
    if not run:
        flag = "--source" if given.mode == "compare" else "--workdir"
        raise UserError(f"{wanted}, or the {flag} of a run, to use its saved config.")
    folder = Path(run)
    saved = workdir.read_config(folder)
    if saved is None:
        raise UserError(f"{wanted}; {folder} holds no run, so it has no saved config (config.json).")
    every = described.defaults() | described.leaves(saved.to_dict())  # a given key may give effect to another one
    config_flags.DEFINE_config_dict("config", described.nested(every), "that of the run", allow_override=True)


def _help() -> str:
    """Modes, flags, and where the keys of a config are described."""
    ours = {f"--{flag.name}": flag.help for flag in flags.FLAGS.get_key_flags_for_module(__name__)}
    keys = {"--config.KEY": "Any key of the config: --mode=config prints them all, docs/config.md describes them."}
    sections = {"Modes": {f"--mode={mode}": does for mode, does in MODES.items()}, "Flags": ours | keys}
    lines = [(__doc__ or "").partition("\n")[0], ""]
    for title, entries in sections.items():
        lines += [f"{title}:", *(f"  {name:<16} {said}" for name, said in entries.items()), ""]
    return "\n".join(
        [*lines, f"Configs: {', '.join(_configs())}; an unknown variant is answered with the list of all."]
    )


def run() -> int:
    return errors.run(lambda: app.run(main, flags_parser=parse_flags))


if __name__ == "__main__":
    sys.exit(run())
