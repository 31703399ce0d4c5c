"""The command line: `unswayed audit | analyze | report | check | mitigate | remember | ...`.

Wrong input of any kind ends in one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from unswayed import __version__
from unswayed.core.commands import OK, Parser, batch_size, run_command
from unswayed.core.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        if argv[:1] == ["lm-eval"]:  # everything after it is lm-eval's own
            return _lm_eval(argv[1:])
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)

    by_itself = argv[:1] in (["remember"], ["mitigate"], ["logo"])
    return run_command(
        "unswayed",
        work,
        on_error="what was finished is kept; mend it and run the same command again, an audit "
        "with --resume",
        interrupted="the same command goes on" if by_itself else "an audit goes on with --resume",
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="unswayed",
        description="Audit how a model's memory of its user changes how it reads feelings.",
    )
    parser.add_argument("--version", action="version", version=f"unswayed {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    audit = commands.add_parser(
        "audit",
        help="ask a model emotional items under several memories and report what changes",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    audit.set_defaults(run=_audit)
    add = audit.add_argument
    add("--model", required=True, help="Hub id, folder, or smollm2-135m (embedded)")
    add("--adapter", help="PEFT adapter on top of it, folder or Hub id")
    add("--items", nargs="+", default=["builtin"], metavar="SPEC",
        help="builtin, understanding, management, or NAME=FILE (names steu, stem, emobench_eu, "
        "emobench_ea select a reader, any other the generic form); see docs/items.md")  # fmt: skip
    add("--decisions", type=Path, metavar="FILE",
        help="annotators' decisions on persona_invariant, JSONL or CSV")  # fmt: skip
    add("--conditions", nargs="+", metavar="NAME",
        help="any of none neutral advantaged disadvantaged, with --personas grid any of none grid; "
        "default: all")  # fmt: skip
    add("--pairs", type=int, metavar="N", help="only the first N persona pairs")
    add("--personas", metavar="FILE",
        help="grid (81 cells of gender, age, religion and ethnicity) or your own pairs, YAML; see "
        "docs/personas.md; default: 30 built-in pairs")  # fmt: skip
    add("--memory", default="prompt",
        help="prompt, retrieval, gated (in the prompt where the question needs it), plum (an "
        "adapter is trained for each persona) or logo (an adapter is trained on the personas that "
        "are not asked about); see docs/memories.md")  # fmt: skip
    add("--memory-style", metavar="NAME",
        help="of prompt: system, user, bullets, turns or ignore (default: system); of retrieval: "
        "bm25-K or embedding-K, K snippets (default: bm25-3); of gated: tfidf-Q, Q a percentile "
        "(default: tfidf-95); of logo: shrinkage-K, K slots that the others' word is worth, or "
        "weights (default: shrinkage-5); plum has none")  # fmt: skip
    add("--plum-recipe", type=Path, metavar="FILE",
        help="recipe with whose settings, and for plum augment, adapters are trained, YAML; see "
        "recipes/plum")  # fmt: skip
    add("--scoring", default="option", help="option, option-sum, letter or generate")
    add("--max-gen-toks", type=int, default=256, help="new tokens per generated answer")
    add("--backend", default="hf-shared", metavar="NAME",
        help="what runs the model: hf-shared, or a backend of lm-eval, such as vllm or "
        "local-chat-completions; see docs/backends.md")  # fmt: skip
    add("--model-args", metavar="K=V,...",
        help="further arguments of the backend, as for lm-eval, or JSON")  # fmt: skip
    add("--gen-kwargs", metavar="K=V,...",
        help="further settings of generated answers, likewise; without any, greedy")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="run directory to write")
    add("--seed", type=int, default=0, help="of the order of options and of resampling")
    add("--batch-size", type=batch_size, default="auto",
        help="prompts per pass in generation and without shared prefixes, or auto")  # fmt: skip
    add("--device", help="as in torch; default: a GPU if there is one")
    add("--dtype", default="auto", help="torch dtype; auto is float32 on CPU")
    add("--resume", action="store_true", help="go on with this run if DIR holds it")

    analyze = commands.add_parser(
        "analyze",
        help="statistics of a run, and of several models side by side",
        description="One DIR: writes its summary.json and report again, with these settings. "
        "Several: does so for each, then compares the models in --out.",
    )
    analyze.set_defaults(run=_analyze)
    analyze.add_argument("dirs", type=Path, nargs="+", metavar="DIR", help="run directory")
    analyze.add_argument("--margin", type=float, default=2.0, metavar="POINTS",
        help="differences below it do not matter, percentage points (default: 2)")  # fmt: skip
    analyze.add_argument("--interactions", action="store_true",
        help="add all two-way interactions to the models of the grid")  # fmt: skip
    analyze.add_argument("--out", type=Path, metavar="DIR",
        help="where the comparison of several models goes")  # fmt: skip

    compare = commands.add_parser(
        "compare",
        help="one model under several memories, side by side",
        description="Each DIR is an audit of the same model and items with another --memory. "
        "Writes compare.json, compare.md and compare.html; see docs/compare.md.",
    )
    compare.set_defaults(run=_compare)
    compare.add_argument("dirs", type=Path, nargs="+", metavar="DIR", help="run directory")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR",
        help="where the comparison goes")  # fmt: skip
    compare.add_argument("--reference", metavar="NAME",
        help="memory that the others are compared with (default: prompt, or the first DIR's if "
        "there is none)")  # fmt: skip

    report = commands.add_parser("report", help="draw a run's report again from its summary")
    report.set_defaults(run=_report)
    report.add_argument("dir", type=Path, metavar="DIR", help="run directory")

    check = commands.add_parser(
        "check",
        help="judge a run by a policy, for pipelines and before deployment",
        description="Writes DIR/checklist.md and DIR/checklist.xml (JUnit). Exit code 0: passed, "
        "1: failed, 2: cannot tell, or wrong input.",
    )
    check.set_defaults(run=_check)
    check.add_argument("dir", type=Path, metavar="DIR", help="run directory")
    check.add_argument("--policy", type=Path, required=True, metavar="FILE",
        help="margins and limits, YAML; see docs/gate.md and configs/policies")  # fmt: skip

    card = commands.add_parser(
        "card", help="write a run's figures into a model repository's folder, for the Hub"
    )
    card.set_defaults(run=_card)
    card.add_argument("dir", type=Path, metavar="DIR", help="run directory")
    card.add_argument("--out", type=Path, required=True, metavar="FOLDER",
        help="folder of the model repository; its README.md is added to, or made")  # fmt: skip
    card.add_argument("--dataset-id", metavar="ID",
        help="benchmark dataset of the items on the Hub, OWNER/NAME; needed for .eval_results, "
        "see docs/hub_results.md")  # fmt: skip

    publish = commands.add_parser(
        "publish",
        help="put a local dataset tree or model on the Hub, in one commit",
        description="The token is that of `hf auth login`, or HF_TOKEN; see docs/publish.md.",
    )
    publish.set_defaults(run=_publish)
    publish.add_argument("folder", type=Path, metavar="FOLDER",
        help="README.md and a folder of Parquet files per config; or a model: an adapter or a "
        "whole one as safetensors, with README.md")  # fmt: skip
    publish.add_argument("--repo_id", required=True, metavar="OWNER/NAME",
        help="repository, made if there is none; other configs of a dataset stay")  # fmt: skip
    publish.add_argument("--license", metavar="ID",
        help="of a model, e.g. apache-2.0, instead of what its card says; the base model's "
        "decides")  # fmt: skip
    publish.add_argument("--base_model", metavar="OWNER/NAME",
        help="of a model, on the Hub, instead of what its card says")  # fmt: skip
    publish.add_argument("--public", action="store_true",
        help="a new repository is public, not private; one that exists stays as it is")  # fmt: skip
    publish.add_argument("--message", default="Publish with unswayed", metavar="TEXT",
        help="of the commit (default: Publish with unswayed)")  # fmt: skip

    traces = commands.add_parser(
        "traces",
        help="does generated reasoning use the persona, and more so when it is wrong?",
        description="Writes DIR/traces.json and DIR/traces.md; see docs/traces.md. A judge's key "
        "is read from the environment: OPENAI_API_KEY, or HF_TOKEN for Hugging Face.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    traces.set_defaults(run=_traces)
    traces.add_argument("dir", type=Path, metavar="DIR",
        help="run directory, audited with --scoring generate")  # fmt: skip
    traces.add_argument("--judge-url", metavar="URL",
        help="OpenAI-compatible endpoint of a model that reads traces too, such as "
        "http://localhost:8000/v1")  # fmt: skip
    traces.add_argument("--judge-model", metavar="NAME", help="that model's name there")
    traces.add_argument("--judge-sample", type=int, default=200, metavar="N",
        help="traces that the judge reads")  # fmt: skip

    _add_mitigate(commands)
    _add_remember(commands)
    _add_logo(commands)

    tasks = commands.add_parser("tasks", help="make stock lm-eval find the persona tasks")
    tasks.set_defaults(run=_tasks)
    tasks.add_argument("action", choices=["install", "uninstall", "path"])

    model = commands.add_parser("model", help="where an embedded model lies")
    model.set_defaults(run=_model)
    model.add_argument("action", choices=["path"])
    model.add_argument("name", help="smollm2-135m")

    commands.add_parser(  # for --help only; main() passes it on
        "lm-eval", help="run lm-eval with the tasks and the model hf-shared registered"
    )
    return parser


def _add_mitigate(commands: argparse._SubParsersAction) -> None:
    mitigate = commands.add_parser(
        "mitigate",
        help="audit a model, train the effect of memory away, audit again, report what changed",
        description="Interrupted, the same command goes on. The exit code says whether it went "
        "through; for a pipeline, run `unswayed check DIR/after` then. See docs/mitigation.md.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    mitigate.set_defaults(run=_mitigate)
    add = mitigate.add_argument
    add("--recipe", type=Path, nargs="+", required=True, metavar="FILE",
        help="what to train, on which pairs, YAML; later files replace keys; see "
        "recipes/dpo")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR",
        help="for runs and report; the adapter goes where the recipe says")  # fmt: skip
    add("--shared", type=Path, metavar="DIR",
        help="for what does not depend on training, kept for other recipes of the same model; "
        "default: --out")  # fmt: skip
    add("--items", nargs="+", default=["builtin"], metavar="SPEC", help="as in `unswayed audit`")
    add("--decisions", type=Path, metavar="FILE", help="as in `unswayed audit`")
    add("--personas", metavar="FILE", help="your own pairs, YAML; default: 30 built-in pairs")
    add("--pairs", type=int, metavar="N",
        help="only the first N persona pairs, none of which training may have seen; default: all "
        "before the first that it saw")  # fmt: skip
    add("--scoring", default="option", help="option, option-sum, letter or generate")
    add("--max-gen-toks", type=int, default=256, help="new tokens per generated answer of an audit")
    add("--seed", type=int, default=0, help="of the audits; the recipe has one for training")
    add("--batch-size", type=batch_size, default="auto", help="as in `unswayed audit`")
    add("--capability", nargs="+", default=[], metavar="NAME=VALUE",
        help="ask MMLU and IFEval too, before and after: mmlu=FOLDER, ifeval=FILE (or Hub ids); "
        "questions, shots, prompts, seed, max_gen_toks")  # fmt: skip
    add(
        "--baselines",
        action="store_true",
        help="also audit, untrained, an instruction to ignore the user and a gated memory",
    )
    add("--policy", type=Path, metavar="FILE", help="judge each run as `unswayed check` does")


def _add_remember(commands: argparse._SubParsersAction) -> None:
    remember = commands.add_parser(
        "remember",
        help="keep conversations in a model's weights: train, ask, list, forget",
        description="A memory is a folder: a LoRA adapter and a manifest; see docs/plum.md.",
    )
    actions = remember.add_subparsers(dest="action", required=True, metavar="ACTION")
    sources = {
        "nargs": "+",
        "metavar": "SPEC",
        "help": "builtin, chat=FILE, sharegpt=FILE or oasst=FILE; see docs/conversations.md",
    }
    where = "where the memory's base model lies, if the name in its manifest does not say"

    train = actions.add_parser(
        "train",
        help="learn the conversations that a memory does not hold yet, in the order of time",
        description="Interrupted, or with more conversations, the same command goes on.",
    )
    train.set_defaults(run=_remember_train)
    train.add_argument("--memory", type=Path, required=True, metavar="DIR", help="begun if new")
    train.add_argument("--conversations", required=True, **sources)
    train.add_argument("--model", metavar="NAME",
        help="of a new memory: Hub id, folder, or smollm2-135m (embedded)")  # fmt: skip
    train.add_argument("--recipe", type=Path, metavar="FILE",
        help="YAML whose model, dtype, settings and augment count; see recipes/plum")  # fmt: skip
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE",
        help="single settings, such as epochs=5 or augment.per_conversation=20")  # fmt: skip

    ask = actions.add_parser(
        "ask",
        help="ask the model that remembers",
        description="Without QUESTION: one after another, from the keyboard until an empty line or "
        "Ctrl-D, or one a line from standard input. Answers are greedy.",
    )
    ask.set_defaults(run=_remember_ask)
    ask.add_argument("memory", type=Path, metavar="DIR", help="folder of the memory")
    ask.add_argument("question", nargs="?", metavar="QUESTION")
    ask.add_argument("--max-new-tokens", type=int, default=64, metavar="N",
        help="the most tokens of an answer (default: 64)")  # fmt: skip
    ask.add_argument("--model", metavar="NAME", help=where)

    listing = actions.add_parser("list", help="what a memory, or each in a folder, knows")
    listing.set_defaults(run=_remember_list)
    listing.add_argument("memory", type=Path, metavar="DIR",
        help="folder of a memory, or of several")  # fmt: skip
    listing.add_argument("--json", action="store_true", help="everything, for programs")

    forget = actions.add_parser(
        "forget",
        help="remove a memory, or train it anew without a conversation",
        description="Nothing is asked before. A memory holds no texts: to forget one conversation, "
        "give all others again; it says what that costs and begins. Until the new memory is whole "
        "the old one stays.",
    )
    forget.set_defaults(run=_remember_forget)
    forget.add_argument("memory", type=Path, metavar="DIR", help="folder of the memory")
    forget.add_argument("--all", action="store_true", help="remove the memory")
    forget.add_argument("--conversation", nargs="+", metavar="ID", help="forget these")
    forget.add_argument("--conversations", **sources)
    forget.add_argument("--model", metavar="NAME", help=where)
    forget.add_argument("--recipe", type=Path, metavar="FILE",
        help="with which the memory was trained, if recipes/plum/train.py did it")  # fmt: skip


def _add_logo(commands: argparse._SubParsersAction) -> None:
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
    evaluate.set_defaults(run=_logo_evaluate)
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
    compare.set_defaults(run=_logo_compare)
    compare.add_argument("dirs", type=Path, nargs="+", metavar="DIR",
        help="folders of evaluations that asked the same questions; the first is what the others "
        "are compared with")  # fmt: skip
    compare.add_argument("--out", type=Path, required=True, metavar="DIR",
        help="where the comparison goes")  # fmt: skip


def _audit(arguments: argparse.Namespace) -> int:
    from unswayed.audit.arguments import AuditArguments
    from unswayed.audit.run import run_audit
    from unswayed.models.load import parse_settings

    given = {k: v for k, v in vars(arguments).items() if k not in ("command", "run")}
    given["model_args"] = parse_settings("--model-args", arguments.model_args)
    given["gen_kwargs"] = parse_settings("--gen-kwargs", arguments.gen_kwargs)
    from unswayed.audit.summary import analyze

    out = run_audit(AuditArguments(**given))
    analyze(out)
    return _print_report(out)


def _analyze(arguments: argparse.Namespace) -> int:
    from unswayed.audit.evidence import require_evidence
    from unswayed.audit.summary import analyze

    several = len(arguments.dirs) > 1
    if several and arguments.out is None:
        raise InputError("several run directories are compared in a folder of their own: add --out")
    if arguments.out and not several:
        raise InputError("--out is for the comparison of several run directories; give two or more")
    for run_dir in arguments.dirs:
        require_evidence(run_dir)
    if several:
        from unswayed.compare.runs import read_alike
        from unswayed.report import write_report

        read_alike(arguments.dirs)
        for run_dir in arguments.dirs:
            analyze(run_dir, arguments.margin / 100, arguments.interactions)
            write_report(run_dir)
        return _write_comparison("models", arguments)
    analyze(arguments.dirs[0], arguments.margin / 100, arguments.interactions)
    return _print_report(arguments.dirs[0])


def _compare(arguments: argparse.Namespace) -> int:
    from unswayed.report.comparisons import kind_of

    if arguments.reference is not None:
        return _write_comparison("memories", arguments, reference=arguments.reference)
    return _write_comparison(kind_of(arguments.dirs), arguments)


def _write_comparison(kind: str, arguments: argparse.Namespace, **options: str) -> int:
    from unswayed.report.comparisons import comparison_text, write_comparison

    comparison = write_comparison(kind, arguments.dirs, arguments.out, **options)
    print(comparison_text(kind, comparison, arguments.out))
    return OK


def _report(arguments: argparse.Namespace) -> int:
    return _print_report(arguments.dir)


def _check(arguments: argparse.Namespace) -> int:
    from unswayed.audit.gate import EXIT_CODES, outcome
    from unswayed.report.checklist import check_run, table, tally

    checks = check_run(arguments.dir, arguments.policy)
    print(f"{table(checks)}\n\n{tally(checks)}.")
    print(f"Checklist: {arguments.dir / 'checklist.md'}")
    return EXIT_CODES[outcome(checks)]


def _mitigate(arguments: argparse.Namespace) -> int:
    from unswayed.mitigation.mitigate import MitigateArguments, mitigate
    from unswayed.mitigation.verdict.words import headlines, warnings

    given = {k: v for k, v in vars(arguments).items() if k not in ("command", "run")}
    found = mitigate(MitigateArguments(**given))
    for text in headlines(found):
        print(text)
    for text in warnings(found):
        print(f"Warning: {text}")
    print(f"\nReport: {arguments.out / 'report.html'}")
    return OK


def _card(arguments: argparse.Namespace) -> int:
    from unswayed.publish.results import write_card

    changed = write_card(arguments.dir, arguments.out, arguments.dataset_id)
    for path in changed:
        print(f"Wrote {path}")
    print("Nothing was uploaded." if changed else "Nothing to change; nothing was uploaded.")
    if arguments.dataset_id is None:
        print("No .eval_results were written: they need --dataset-id.")
    return OK


def _publish(arguments: argparse.Namespace) -> int:
    from unswayed.publish.push import publish

    url = publish(
        arguments.folder,
        arguments.repo_id,
        private=not arguments.public,
        message=arguments.message,
        license=arguments.license,
        base_model=arguments.base_model,
    )
    print(f"Published: {url}")
    return OK


def _traces(arguments: argparse.Namespace) -> int:
    from unswayed.report.traces import analyse_traces, judge_lines, notes, trace_table

    content = analyse_traces(
        arguments.dir, arguments.judge_url, arguments.judge_model, arguments.judge_sample
    )
    print(trace_table(content))
    for line in [*notes(content["tests"]), *judge_lines(content)]:
        print(f"\n{line}")
    print(f"\nPage: {arguments.dir / 'traces.md'}")
    return OK


def _print_report(out: Path) -> int:
    from unswayed.audit.summary import read_summary
    from unswayed.report import result_table, write_report

    page = write_report(out)
    summary = read_summary(out)
    print(result_table(summary))
    print()
    print(summary["verdict"]["text"])
    for warning in summary["warnings"]:
        print(f"Warning: {warning}")
    print(f"\nReport: {page}")
    return OK


def _remember_train(arguments: argparse.Namespace) -> int:
    from unswayed.plum.remember import count, duration, learn

    found = learn(
        arguments.memory,
        arguments.conversations,
        arguments.model,
        arguments.recipe,
        arguments.set,
    )
    if found["without_questions"]:
        ids = ", ".join(found["without_questions"])
        print(f"Not learnt, too little text to ask about: {ids}")
    known, new = found["conversations"], found["learnt"]
    seconds = sum(entry.get("seconds", 0) for entry in known if entry["id"] in new)
    print(
        f"{found['memory']} knows {count(len(known))}, {len(new)} of them new, learnt in "
        f"{duration(seconds)}; adapter of {_megabytes(found['bytes'])}"
    )
    return OK


def _remember_ask(arguments: argparse.Namespace) -> int:
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


def _remember_list(arguments: argparse.Namespace) -> int:
    from unswayed.plum.remember import count, stored

    found = stored(arguments.memory)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return OK
    for one in found:
        ids = [entry["id"] for entry in one["conversations"]]
        settings = ", ".join(f"{name} {value}" for name, value in one["settings"].items())
        print(
            f"{one['memory']}: {count(len(ids))} on {one['base']['model']}, "
            f"{_megabytes(one['bytes'])}\n  settings: {settings}\n  knows: {', '.join(ids)}"
            + "".join(
                f"\n  held-out questions whose answer is {kind}: {sum(right)} of {len(right)} right"
                for kind, right in (one["recall"] or {}).items()
            )
        )
    return OK


def _remember_forget(arguments: argparse.Namespace) -> int:
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
    found = forget(
        arguments.memory, ids, arguments.conversations, arguments.model, arguments.recipe
    )
    left = count(len(found["conversations"]))
    print(f"{found['memory']} no longer knows {', '.join(ids)}; it knows {left}")
    return OK


def _logo_evaluate(arguments: argparse.Namespace) -> int:
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


def _logo_compare(arguments: argparse.Namespace) -> int:
    return _write_comparison("settings", arguments)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _tasks(arguments: argparse.Namespace) -> int:
    from unswayed import tasks

    if arguments.action == "path":
        print(tasks.path())
    elif arguments.action == "install":
        folder, names = tasks.install()
        print(f"Made {folder}: lm_eval now knows {', '.join(names)}.")
    else:
        folder = tasks.stub_folder()
        print(f"Removed {folder}." if tasks.uninstall() else f"Nothing to remove at {folder}.")
    return OK


def _model(arguments: argparse.Namespace) -> int:
    from unswayed.models.embedded import EMBEDDED, embedded_model

    if arguments.name != EMBEDDED:
        raise InputError(f"model {arguments.name!r} is not embedded; known is {EMBEDDED}")
    print(embedded_model())
    return OK


def _lm_eval(argv: list[str]) -> int:
    """lm-eval's own command line, with our tasks and `hf-shared` registered."""
    from unswayed import tasks

    if not tasks.installed():
        if any(a.split("=")[0] == "--include_path" for a in argv):
            raise InputError(
                "with an --include_path of your own, run `unswayed tasks install` first, so that "
                "the persona tasks are found too"
            )
        argv = [*argv, "--include_path", str(tasks.path())]
    from lm_eval.__main__ import cli_evaluate

    import unswayed.scoring.lm  # noqa: F401  (registers hf-shared)

    sys.argv = ["lm-eval", *argv]
    cli_evaluate()
    return OK


if __name__ == "__main__":
    sys.exit(main())
