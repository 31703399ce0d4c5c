"""`unswayed validate`: under which way of scoring a model reads the questions."""

from __future__ import annotations

import argparse

from unswayed.core.arguments import filled
from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "validate",
        help="find the way of scoring under which a model reads the questions",
        description="Asks without memory, by every rule of option scoring and by letters, and "
        "recommends one.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.fills = "unswayed.audit.validation:ValidationArguments"


def run(arguments: argparse.Namespace) -> int:
    from unswayed.audit.validation import ValidationArguments, validate
    from unswayed.core.files import write_json
    from unswayed.models.load import parse_settings
    from unswayed.report.validation import validation_text

    model_args = parse_settings("--model-args", arguments.model_args)
    result = validate(filled(ValidationArguments, arguments, model_args=model_args))
    if arguments.out is not None:
        write_json(arguments.out, result, indent=2, allow_nan=False)
    print(validation_text(result))
    return OK
