"""`unswayed remember`: conversations kept in a model's weights."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from unswayed.core.commands import OK
from unswayed.core.errors import InputError

SOURCES = {
    "nargs": "+",
    "metavar": "SPEC",
    "help": "builtin, chat=FILE, sharegpt=FILE or oasst=FILE; see docs/conversations.md",
}
WHERE = "where the memory's base model lies, if the name in its manifest does not say"


def add(commands: argparse._SubParsersAction) -> None:
    remember = commands.add_parser(
        "remember",
        help="keep conversations in a model's weights: train, ask, list, forget",
        description="A memory is a folder: a LoRA adapter and a manifest; see docs/plum.md.",
    )
    actions = remember.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_train(actions)
    _add_ask(actions)
    listing = actions.add_parser("list", help="what a memory, or each in a folder, knows")
    listing.set_defaults(run=_list)
    listing.add_argument("memory", type=Path, metavar="DIR",
        help="folder of a memory, or of several")  # fmt: skip
    listing.add_argument("--json", action="store_true", help="everything, for programs")
    _add_forget(actions)


def _add_train(actions: argparse._SubParsersAction) -> None:
    train = actions.add_parser(
        "train",
        help="learn the conversations that a memory does not hold yet, in the order of time",
        description="Interrupted, or with more conversations, the same command goes on.",
    )
    train.set_defaults(run=_train)
    train.add_argument("--memory", type=Path, required=True, metavar="DIR", help="begun if new")
    train.add_argument("--conversations", required=True, **SOURCES)
    train.add_argument("--model", metavar="NAME",
        help="of a new memory: Hub id, folder, or smollm2-135m (embedded)")  # fmt: skip
    train.add_argument("--recipe", type=Path, metavar="FILE",
        help="YAML whose model, dtype, settings and augment count; see recipes/plum")  # fmt: skip
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="single settings, such as epochs=5 or augment.per_conversation=20")  # fmt: skip


def _add_ask(actions: argparse._SubParsersAction) -> None:
    ask = actions.add_parser(
        "ask",
        help="ask the model that remembers",
        description="Without QUESTION: one after another, from the keyboard until an empty line or "
        "Ctrl-D, or one a line from standard input. Answers are greedy.",
    )
    ask.set_defaults(run=_ask)
    ask.add_argument("memory", type=Path, metavar="DIR", help="folder of the memory")
    ask.add_argument("question", nargs="?", metavar="QUESTION")
    ask.add_argument("--max-new-tokens", type=int, default=64, metavar="N",
        help="the most tokens of an answer (default: 64)")  # fmt: skip
    ask.add_argument("--model", metavar="NAME", help=WHERE)


def _add_forget(actions: argparse._SubParsersAction) -> None:
    forget = actions.add_parser(
        "forget",
        help="remove a memory, or train it anew without a conversation",
        description="Nothing is asked before. A memory holds no texts: to forget one conversation, "
        "give all others again; it says what that costs and begins. Until the new memory is whole "
        "the old one stays.",
    )
    forget.set_defaults(run=_forget)
    forget.add_argument("memory", type=Path, metavar="DIR", help="folder of the memory")
    forget.add_argument("--all", action="store_true", help="remove the memory")
    forget.add_argument("--conversation", nargs="+", metavar="ID", help="forget these")
    forget.add_argument("--conversations", **SOURCES)
    forget.add_argument("--model", metavar="NAME", help=WHERE)
    forget.add_argument("--recipe", type=Path, metavar="FILE",
        help="with which the memory was trained, if recipes/plum/train.py did it")  # fmt: skip


def _train(arguments: argparse.Namespace) -> int:
    from unswayed.plum.remember import count, duration, learn

    memory = learn(
        arguments.memory,
        arguments.conversations,
        arguments.model,
        arguments.recipe,
        arguments.set,
    )
    if memory["without_questions"]:
        ids = ", ".join(memory["without_questions"])
        print(f"Not learnt, too little text to ask about: {ids}")
    conversations, new = memory["conversations"], memory["learnt"]
    seconds = sum(entry.get("seconds", 0) for entry in conversations if entry["id"] in new)
    print(
        f"{memory['memory']} knows {count(len(conversations))}, {len(new)} of them new, learnt in "
        f"{duration(seconds)}; adapter of {_megabytes(memory['bytes'])}"
    )
    return OK


def _ask(arguments: argparse.Namespace) -> int:
    from unswayed.plum.remember import answers

    piped = arguments.question is None and not sys.stdin.isatty()
    questions = _questions() if arguments.question is None else [arguments.question]
    for answer in answers(arguments.memory, questions, arguments.max_new_tokens, arguments.model):
        print(" ".join(answer.split()) if piped else answer, flush=True)  # piped: one a line
    return OK


def _questions() -> Iterator[str]:
    """From the keyboard until an empty line, or all lines of a pipe that are not empty."""
    if not sys.stdin.isatty():
        try:
            yield from (line for line in sys.stdin if line.strip())
        except UnicodeDecodeError as error:
            raise InputError(f"standard input is not {error.encoding} text: {error}") from None
        return
    import readline  # noqa: F401  (lets input() edit lines)

    while True:
        try:
            question = input("> ")
        except EOFError:
            print()
            return
        if not question.strip():
            return
        yield question


def _list(arguments: argparse.Namespace) -> int:
    from unswayed.plum.remember import count, stored

    memories = stored(arguments.memory)
    if arguments.json:
        print(json.dumps(memories, indent=2, ensure_ascii=False))
        return OK
    for memory in memories:
        ids = [entry["id"] for entry in memory["conversations"]]
        settings = ", ".join(f"{name} {value}" for name, value in memory["settings"].items())
        print(
            f"{memory['memory']}: {count(len(ids))} on {memory['base']['model']}, "
            f"{_megabytes(memory['bytes'])}\n  settings: {settings}\n  knows: {', '.join(ids)}"
            + "".join(
                f"\n  held-out questions whose answer is {kind}: {sum(right)} of {len(right)} right"
                for kind, right in (memory["recall"] or {}).items()
            )
        )
    return OK


def _forget(arguments: argparse.Namespace) -> int:
    from unswayed.plum.forget import forget, forget_all
    from unswayed.plum.remember import count

    ids = arguments.conversation
    if arguments.all == bool(ids):
        raise InputError("say what to forget: --all, or --conversation ID")
    if arguments.all:
        for path in forget_all(arguments.memory):
            print(f"Removed {path}")
        return OK
    if not arguments.conversations:
        raise InputError(
            "a memory holds no texts: to forget a conversation, give all others again with "
            "--conversations, from which it is trained anew"
        )
    memory = forget(
        arguments.memory, ids, arguments.conversations, arguments.model, arguments.recipe
    )
    left = count(len(memory["conversations"]))
    print(f"{memory['memory']} no longer knows {', '.join(ids)}; it knows {left}")
    return OK


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
