"""`unswayed logo`: what users answer, predicted from their own past and from everyone's."""

from __future__ import annotations

import argparse
from pathlib import Path

from unswayed.cli.compare import compare_runs
from unswayed.core.commands import OK


def add(commands: argparse._SubParsersAction) -> None:
    logo = commands.add_parser(
        "logo", help="predict what users answer from their own past and from everyone's"
    )
    actions = logo.add_subparsers(dest="action", required=True, metavar="ACTION")
    evaluate = actions.add_parser(
        "evaluate",
        help="train a global memory, ask all methods the same questions, compare",
        description="Interrupted, the same command goes on. Writes OUT/tables.md, logo.svg and "
        "result.json; see docs/logo.md.",
    )
    evaluate.set_defaults(run=_evaluate)
    add = evaluate.add_argument
    add("--recipe", type=Path, nargs="+", required=True, metavar="FILE",
        help="what is trained and asked, YAML; later files replace keys; see "
        "recipes/logo")  # fmt: skip
    add("--histories", metavar="SPEC",
        help="instead of the recipe's: builtin, movielens=FOLDER, movielens-tags=FOLDER, "
        "lampN=FILE or events=FILE; see docs/histories.md")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="for answers, tables and plots")
    add("--seeds", type=int, nargs="+", metavar="N", help="instead of the recipe's")
    add("--methods", nargs="+", metavar="NAME",
        help="of none retrieval profile local-calibrated global global-calibrated logo-weights "
        "logo-prompt logo-shrinkage logo-gate logo-equal means; default: all")  # fmt: skip

    compare = actions.add_parser(
        "compare",
        help="evaluations that differ in a setting, question by question: ablations",
        description="Writes OUT/comparison.md and comparison.json; see docs/logo.md.",
    )
    compare.set_defaults(run=_compare)
    compare.add_argument("dirs", type=Path, nargs="+", metavar="DIR",
        help="folders of evaluations that asked the same questions; the first is what the others "
        "are compared with")  # fmt: skip
    compare.add_argument("--out", type=Path, required=True, metavar="DIR",
        help="where the comparison goes")  # fmt: skip


def _evaluate(arguments: argparse.Namespace) -> int:
    import dataclasses

    from unswayed.logo.recipe import read_recipe

    recipe = read_recipe(arguments.recipe)
    if arguments.histories is not None:
        recipe = dataclasses.replace(recipe, histories=arguments.histories)
    from unswayed.logo.evaluate import evaluate
    from unswayed.logo.tables import tables

    print(tables(evaluate(recipe, arguments.out, arguments.seeds or (), arguments.methods or ())))
    print(f"\n{arguments.out / 'tables.md'}, {arguments.out / 'logo.svg'}")
    return OK


def _compare(arguments: argparse.Namespace) -> int:
    return compare_runs("settings", arguments)
