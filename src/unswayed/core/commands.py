"""What every command and script does around its work: log lines, exit codes, errors in one line."""

from __future__ import annotations

import argparse
import logging
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

from unswayed.core.arguments import add_options
from unswayed.core.errors import InputError

OK, WRONG_INPUT, INTERRUPTED = 0, 2, 130
PIPE_CLOSED = 141  # as the shell says of a program that SIGPIPE ended


class Parser(argparse.ArgumentParser):
    """One whose complaints are an `InputError`: one line instead of usage and message.

    Attributes:
        fills: "module:NAME" of the dataclass whose fields are its options. It is imported only to
            parse: a command's help line does not need what the command is about.
    """

    fills: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.fills is not None:
            add_options(self, pkgutil.resolve_name(self.fills))
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        raise InputError(f"{message} (see `{self.prog} --help`)")


def batch_size(text: str) -> int | str:
    """The value of --batch-size."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def run_command(
    name: str,
    work: Callable[[], int | None],
    *,
    on_error: str = "",
    interrupted: str = "",
    wrong_input: int = WRONG_INPUT,
) -> int:
    """Do the work of a command; its exit code, or 0 if it gives none.

    Wrong input, a full disk and the like end in one line on standard error and `wrong_input`,
    Ctrl-C in 130, a reader that has seen enough (`| head`) silently in 141.

    Args:
        name: begins each complaint, e.g. "train.py".
        on_error: what to do after an error of the system, such as a full disk.
        interrupted: how to go on after Ctrl-C.
    """

    def complain(text: str) -> int:
        print(f"{name}: {' '.join(text.split())}", file=sys.stderr)
        return wrong_input

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("unswayed").setLevel(logging.INFO)  # how far long work is
    for library in ("datasets", "huggingface_hub"):  # they write there themselves
        logging.getLogger(library).propagate = False
    try:
        code = work() or OK
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return PIPE_CLOSED
    except InputError as error:
        return complain(str(error))
    except OSError as error:  # full disk, no permission, ...
        where = f" ({error.filename})" if error.filename else ""
        return complain(f"{error.strerror or error}{where}" + (on_error and f": {on_error}"))
    except UnicodeEncodeError as error:  # half of a surrogate pair, e.g. "\ud800" in JSON
        bad = ascii(error.object[error.start : error.end])
        return complain(f"a text holds {bad}, which UTF-8 cannot hold: mend the input")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "unswayed":
            raise
        return complain(f"this needs the package {package}: `pip install {package}`")
    except KeyboardInterrupt:
        complain("interrupted" + (interrupted and f"; {interrupted}"))
        return INTERRUPTED
