"""The command line: parse, build a configuration, call one function.

Flags, their old spellings and their help come from the fields of `facenet_fast.config`. TensorFlow is
imported only once there is work for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import facenet_fast
from facenet_fast.config import (
    AUGMENTATIONS,
    PRESETS,
    ClassifyConfig,
    CompareConfig,
    DataConfig,
    EmbedConfig,
    FreezeConfig,
    TrainConfig,
    ValidateConfig,
    field_type,
    from_mapping,
    read_settings,
)
from facenet_fast.errors import UserError
from facenet_fast.quiet import quiet

__all__ = ["main"]

_EPILOG = """\
Spellings with underscores (--batch_size) and unambiguous beginnings (--epoch) work too, as do the flags of
davidsandberg/facenet's scripts; --preset facenet sets the defaults of its trainer.
"""


@dataclass(frozen=True)
class _Command:
    """A command beside `train`: its settings, the function that takes them, and what it does."""

    config_class: type
    module: str
    function: str
    summary: str
    needs_tensorflow: bool = True


_COMMANDS = {
    "validate": _Command(
        ValidateConfig,
        "facenet_fast.validate",
        "validate",
        "Verify a model: by the protocol of LFW, exactly, on any folder of identities.",
    ),
    "freeze": _Command(
        FreezeConfig, "facenet_fast.export", "freeze", "Write a run's network as a frozen TensorFlow graph."
    ),
    "embed": _Command(
        EmbedConfig,
        "facenet_fast.embed",
        "embed_folder",
        "Write the embeddings of a folder of images to a file.",
    ),
    "compare": _Command(
        CompareConfig, "facenet_fast.compare", "compare", "Tell how far images are apart, and who is whom."
    ),
    "classify": _Command(
        ClassifyConfig,
        "facenet_fast.classify",
        "classify",
        "Train a classifier of known people on embeddings, or name the people in images.",
    ),
    "data": _Command(
        DataConfig,
        "facenet_fast.check_data",
        "check_data",
        "Check a folder of identities: broken files, duplicates, people of the test set.",
        needs_tensorflow=False,
    ),
}

# Parsed arguments that are no settings.
_NOT_SETTINGS = ("command", "preset", "augment", "config")
# Of TensorFlow's levels the one that leaves out most: errors of its own are exceptions here.
_QUIET = "3"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; default: those of the process.

    Returns
    -------
    int
        Exit status: 0, 2 for a mistake of the user's, 130 for an interrupt.
    """
    _prepare()
    handler = _log_to_stderr()
    try:
        _run(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"facenet-fast: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("facenet-fast: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left (`| head`); what is still in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        logging.getLogger("facenet_fast").removeHandler(handler)
    return 0


def _run(arguments: Sequence[str]) -> None:
    parsed = vars(_build_parser().parse_args([_dashed(argument) for argument in arguments]))
    settings = {name: value for name, value in parsed.items() if name not in _NOT_SETTINGS}
    if parsed["command"] == "train":
        _train(parsed.get("preset"), parsed.get("augment"), parsed.get("config"), settings)
        return
    command = _COMMANDS[parsed["command"]]
    config: Any = from_mapping(command.config_class, settings)
    if command.needs_tensorflow:
        _import_tensorflow()
    getattr(importlib.import_module(command.module), command.function)(config)


def _train(preset: str | None, augment: str | None, recipe: str | None, settings: dict[str, Any]) -> None:
    if settings.get("backbone") == "list":
        from facenet_fast.backbones import describe

        width = max(len(name) for name in describe())
        for name, description in describe().items():
            print(f"{name:{width}}  {description}")
        return
    if settings.get("resume"):
        for name, given in (("preset", preset), ("augment", augment), ("config", recipe)):
            if given:
                raise UserError(f"{name} must not be given with resume, which has the settings of its run")
        _import_tensorflow()
        from facenet_fast.training.run_folder import resumed_config

        config = resumed_config(settings["resume"], settings)
    else:
        from_file = read_settings(os.path.expanduser(recipe)) if recipe else {}
        # A new run as that one was, wherever that one went on from.
        from_file.pop("resume", None)
        defaults = {
            **PRESETS[preset or "demo"],
            **(AUGMENTATIONS[augment] if augment else {}),
            **from_file,
        }
        config = from_mapping(TrainConfig, {**defaults, **settings})
        _import_tensorflow()
    from facenet_fast.training.loop import train

    train(config)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are the user's, told like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="facenet-fast",
        description="Train face embeddings with triplet loss, verify them, and freeze them for use.",
    )
    parser.add_argument("--version", action="version", version=f"facenet-fast {facenet_fast.__version__}")
    names = " | ".join(("train", *_COMMANDS))
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    train = _add_command(
        commands, "train", TrainConfig, "Train a network; without arguments, on the ORL faces in minutes."
    )
    train.add_argument(
        "--preset", choices=sorted(PRESETS), help="defaults of all other flags: demo, or the predecessor's"
    )
    train.add_argument(
        "--augment",
        choices=list(AUGMENTATIONS),
        help="defaults of the flags of augmentation, whatever the preset's are",
    )
    train.add_argument(
        "--config",
        metavar="FILE",
        help="JSON file of settings, such as a run's config.json: defaults of flags, stronger than presets",
    )
    for name, command in _COMMANDS.items():
        _add_command(commands, name, command.config_class, command.summary)
    return parser


def _add_command(commands: Any, name: str, config_class: type, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=_EPILOG,
        # What is not given stays out of the result, so that a preset or a resumed run can say it.
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_setting(groups[title], config_class, field)
    return parser


def _add_setting(group: Any, config_class: type, field: dataclasses.Field[Any]) -> None:
    kind, _ = field_type(config_class, field.name)
    if field.metadata["positional"]:
        several = {"nargs": "+"} if kind is tuple else {}
        group.add_argument(field.name, metavar=field.name.upper(), help=_help(field), **several)
        return
    flag = _flag(field.name)
    options: dict[str, Any] = {"dest": field.name}
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        # Choices are checked by the configuration, so that a mistake is told in one way everywhere.
        options["type"] = kind
        options["metavar"] = _metavar(field, kind)
    group.add_argument(flag, help=_help(field), **options)
    for alias in field.metadata["aliases"]:
        group.add_argument(_flag(alias), help=argparse.SUPPRESS, **options)
    for alias, convert in field.metadata["converted"].items():
        group.add_argument(
            _flag(alias), help=argparse.SUPPRESS, dest=field.name, action=_Converted, convert=convert
        )


class _Converted(argparse.Action):
    """Store a number given in an old flag's unit in the unit of the setting."""

    def __init__(self, *, convert: Any, **options: Any) -> None:
        super().__init__(type=float, **options)
        self._convert = convert

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, self._convert(values))


def _help(field: dataclasses.Field[Any]) -> str:
    text = field.metadata["help"]
    has_default = field.default not in (dataclasses.MISSING, None, "")
    if has_default:
        text += f" (default: {_shown(field.default)})"
    old = [*field.metadata["aliases"], *field.metadata["converted"]]
    if old:
        text += f"; formerly {', '.join(f'--{alias}' for alias in old)}"
    return str(text.replace("%", "%%"))


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _metavar(field: dataclasses.Field[Any], kind: type) -> str:
    choices = field.metadata["choices"]
    if choices:
        return "{" + ",".join(str(choice) for choice in choices) + "}"
    if field.metadata["path"]:
        return "PATH"
    return {int: "N", float: "X", str: "NAME"}[kind]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _dashed(argument: str) -> str:
    """Spell a flag with dashes, whichever way it was given; leave its value alone.

    Examples
    --------
    >>> _dashed("--data_dir=my_faces"), _dashed("my_faces")
    ('--data-dir=my_faces', 'my_faces')
    """
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _import_tensorflow() -> None:
    """Import TensorFlow without the lines that it writes before anything can tell it not to.

    They come from C++ straight to file descriptor 2. If the import fails they are shown after all.
    """
    if "tensorflow" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != _QUIET:
        return
    with quiet():
        import tensorflow  # noqa: F401


def _prepare() -> None:
    """Keep TensorFlow's chatter down, and let the user's own networks be found."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _QUIET)
    # `--backbone MODULE:FUNCTION`: an installed command, unlike `python -m`, does not look here by itself.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _log_to_stderr() -> logging.Handler:
    # We log nothing graver: what stops a command is an exception.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("facenet-fast: warning: %(message)s"))
    logging.getLogger("facenet_fast").addHandler(handler)
    return handler
