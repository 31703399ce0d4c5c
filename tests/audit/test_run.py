"""The run directory: what it holds, how it resumes, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from unswayed.audit import run as audit_run
from unswayed.audit.rules import by_rule
from unswayed.audit.run import run_audit
from unswayed.audit.rundir import read_answers, read_run
from unswayed.audit.trials import SCHEMA
from unswayed.core.errors import InputError


@pytest.fixture
def count_parts(monkeypatch):
    """Counts calls of `score`; raises KeyboardInterrupt once `stop_after` parts are scored."""
    real, calls = audit_run.score, []

    def counted(*args, **kwargs):
        if len(calls) == counted.stop_after:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **kwargs)

    counted.stop_after, counted.calls = None, calls
    monkeypatch.setattr(audit_run, "score", counted)
    return counted


def test_a_run_holds_every_trial_once(arguments):
    out = run_audit(arguments())
    rows = read_answers(out).to_pylist()
    assert read_answers(out).schema.equals(SCHEMA)
    assert len(rows) == 3 * (1 + 2 * 3)
    keys = {(r["question_id"], r["persona_id"]) for r in rows}
    assert len(keys) == len(rows)
    for row in rows:
        assert row["answer"] in row["options"] and row["parsed"]
        assert row["correct"] == (row["answer"] == row["gold_label"])
        assert row["score"] == row["weights"][row["options"].index(row["answer"])]
        assert row["user_prompt"] in row["prompt"]
        assert (row["system_prompt"] is None) == (row["condition"] == "none")
        assert row["system_prompt"] is None or row["system_prompt"] in row["prompt"]
        assert row["memory"] == ("none" if row["condition"] == "none" else "prompt")
    bare = {r["question_id"]: r["answer"] for r in rows if r["condition"] == "none"}
    for row in rows:
        flipped = None if row["condition"] == "none" else row["answer"] != bare[row["question_id"]]
        assert row["flip"] == flipped
    run = read_run(out)
    assert run["status"] == "complete" and run["n_trials"] == len(rows)
    assert run["hashes"].keys() == {"items", "personas", "prompts", "answers"}
    assert run["model"]["shared_prefixes"] is True
    assert not (out / "parts").exists()


@pytest.mark.parametrize(("scoring", "said"), [("option", 1), ("letter", 0)])
def test_an_option_that_begins_another_is_noted(arguments, tmp_path, caplog, scoring, said):
    row = {"id": "a", "scenario": "Felt?", "options": ["joy", "joy and relief"], "key": "joy"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    out = run_audit(arguments(items=[f"t={tmp_path / 't.jsonl'}"], scoring=scoring, pairs=1))
    words = "An option begins another (1 times, such as 'joy' and 'joy and relief' (a))"
    for lines in (read_run(out)["notes"], caplog.messages):
        assert sum(line.startswith(words) for line in lines) == said


def test_an_interrupted_run_resumes_with_nothing_scored_twice(arguments, count_parts):
    whole = run_audit(arguments("whole"))
    n_parts = len(count_parts.calls)
    count_parts.calls.clear()
    count_parts.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        run_audit(arguments("broken"))
    assert read_run(arguments("broken").out)["status"] == "running"
    count_parts.calls.clear()
    count_parts.stop_after = None
    resumed = run_audit(arguments("broken", resume=True))
    assert len(count_parts.calls) == n_parts - 3
    assert (resumed / "answers.parquet").read_bytes() == (whole / "answers.parquet").read_bytes()


def test_a_damaged_part_is_scored_again(arguments, count_parts, caplog):
    whole = run_audit(arguments("whole"))
    count_parts.stop_after = len(count_parts.calls) + 2
    with pytest.raises(KeyboardInterrupt):
        run_audit(arguments("broken"))
    (part, *_) = sorted((arguments("broken").out / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    count_parts.stop_after = None
    resumed = run_audit(arguments("broken", resume=True))
    assert "is damaged and will be scored again" in caplog.text
    assert (resumed / "answers.parquet").read_bytes() == (whole / "answers.parquet").read_bytes()


def test_a_complete_run_is_not_scored_again(arguments, count_parts):
    run_audit(arguments())
    count_parts.calls.clear()
    run_audit(arguments(resume=True))
    assert count_parts.calls == []


def test_the_same_run_needs_resume_and_another_is_refused(arguments):
    run_audit(arguments())
    before = (arguments().out / "answers.parquet").read_bytes()
    with pytest.raises(InputError, match=r"already holds this run .* add --resume"):
        run_audit(arguments())
    with pytest.raises(InputError, match=r"holds a different run .*seed"):
        run_audit(arguments(seed=1, resume=True))
    with pytest.raises(InputError, match=r"holds a different run .*personas and conditions"):
        run_audit(arguments(conditions=["none", "neutral"], resume=True))
    assert (arguments().out / "answers.parquet").read_bytes() == before


def test_a_mistyped_model_does_not_take_the_folder(arguments):
    with pytest.raises(InputError, match="cannot be loaded"):
        run_audit(arguments(model="nobody/no-such-model"))
    assert read_answers(run_audit(arguments())).num_rows == 21


def test_a_folder_with_other_things_is_left_alone(arguments, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("keep me")
    with pytest.raises(InputError, match="not empty and no run"):
        run_audit(arguments())
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give a folder"):
        run_audit(arguments("file"))


@pytest.mark.parametrize("keep", [0, 4, 2000])
def test_damaged_answers_are_named(arguments, keep):
    out = run_audit(arguments())
    path = out / "answers.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    for attempt in (lambda: read_answers(out), lambda: run_audit(arguments(resume=True))):
        with pytest.raises(InputError, match=r"answers.parquet is damaged or half-written"):
            attempt()


def test_answers_that_do_not_fit_the_run_are_named(arguments):
    out = run_audit(arguments())
    table = pq.read_table(out / "answers.parquet")
    pq.write_table(table.slice(0, 5), out / "answers.parquet")
    with pytest.raises(InputError, match="has 5 rows, the run wrote 21"):
        read_answers(out)
    pq.write_table(table.drop_columns(["flip"]), out / "answers.parquet")
    with pytest.raises(InputError, match="lacks the column flip"):
        read_answers(out)
    (out / "run.json").write_text('{"half')
    with pytest.raises(InputError, match=r"run.json cannot be read"):
        read_answers(out)


def test_other_weights_are_not_mixed_in(arguments, count_parts, tiny_model_dir):
    import shutil

    given = arguments()
    model = given.out.parent / "model"
    shutil.copytree(given.model, model)
    count_parts.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        run_audit(dataclasses.replace(given, model=str(model)))
    other = tiny_model_dir("llama", chat=True, max_position_embeddings=4096, num_hidden_layers=2)
    shutil.copytree(other, model, dirs_exist_ok=True)
    with pytest.raises(InputError, match="begun with other weights"):
        run_audit(dataclasses.replace(given, model=str(model), resume=True))


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_keeps_finished_parts(arguments, chat_model, items_file):
    """A limit on the size of files stands for the full disk: the last write does not fit."""
    out = arguments().out
    command = [
        sys.executable, "-m", "unswayed", "audit", "--model", str(chat_model),
        "--items", f"mine={items_file}", "--pairs", "2", "--out", str(out), "--resume",
    ]  # fmt: skip
    # Parts are below the limit, the answers of all parts together above it.
    limited = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (14_500, 14_500)),
    )
    assert limited.returncode == 2
    (line,) = [x for x in limited.stderr.splitlines() if x.startswith("unswayed: ")]
    assert "what was finished is kept" in line
    assert "Traceback" not in limited.stderr
    assert not (out / "answers.parquet").exists()
    kept = len(list((out / "parts").glob("*.parquet")))
    assert kept >= 1
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{kept} of 7 parts are already scored" in again.stderr
    assert "Report: " in again.stdout


# -- ways of scoring -----------------------------------------------------------------------------


def rows_of(out) -> list[dict]:
    return read_answers(out).to_pylist()


def test_letters_are_permuted_per_item_and_alike_in_all_conditions(arguments):
    rows = rows_of(run_audit(arguments(scoring="letter", seed=3)))
    orders = {}
    for row in rows:
        orders.setdefault(row["question_id"], set()).add(tuple(row["option_order"]))
        shown = [row["options"][i] for i in row["option_order"]]
        assert all(f"{x}. {text}\n" in row["user_prompt"] for x, text in zip("ABC", shown))  # noqa: B905
    assert all(len(found) == 1 for found in orders.values())
    assert orders != {key: {tuple(range(len(next(iter(found)))))} for key, found in orders.items()}


def test_generated_answers_that_say_nothing_are_kept_as_unparsed(arguments):
    rows = rows_of(run_audit(arguments(scoring="generate", max_gen_toks=4, pairs=1)))
    assert all(row["raw_text"] is not None and row["option_scores"] is None for row in rows)
    silent = [row for row in rows if not row["parsed"]]
    assert silent  # a random model babbles
    assert all(
        (r["answer"], r["correct"], r["score"], r["flip"]) == (None, False, 0.0, None)
        for r in silent
    )


def test_one_pass_gives_all_rules(arguments):
    out = run_audit(arguments("pmi"))
    for rule in ("sum", "char", "token"):
        asked_so = rows_of(run_audit(arguments(rule, rule=rule)))
        read_so = by_rule(read_answers(out).to_pandas(), rule, out).to_dict("records")
        for a, b in zip(asked_so, read_so, strict=True):
            assert [float(x) for x in b["option_scores"]] == a["option_scores"]
            same = ("answer", "correct", "score", "blind_answer", "rule", "flip")
            assert {name: a[name] for name in same} == {name: b[name] for name in same}
    by_characters = rows_of(tmp_run := run_audit(arguments("char", rule="char", resume=True)))
    assert tmp_run.name == "char"
    for row in by_characters:
        scores = [s / len(t) for s, t in zip(row["option_scores"], row["options"], strict=True)]
        assert row["answer"] == row["options"][scores.index(max(scores))]
    for row in rows_of(out):
        scores = [s - p for s, p in zip(row["option_scores"], row["option_priors"], strict=True)]
        assert row["answer"] == row["options"][scores.index(max(scores))]


def test_a_rule_without_meaning_is_refused(arguments):
    with pytest.raises(InputError, match="only with option"):
        arguments(scoring="letter", rule="pmi")
    with pytest.raises(InputError, match="not one of sum"):
        arguments(rule="longest")
    with pytest.raises(InputError, match="only letter"):
        arguments(orders=2)
    with pytest.raises(InputError, match="a run of --scoring letter"):
        out = run_audit(arguments(scoring="letter", pairs=1))
        by_rule(read_answers(out).to_pandas(), "pmi", out)


@pytest.mark.parametrize("style", ["user", "bullets", "turns"])
def test_every_memory_style_reaches_the_model(arguments, style):
    rows = rows_of(run_audit(arguments(memory_style=style, pairs=1)))
    remembered = [row for row in rows if row["condition"] != "none"]
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert {row["memory_style"] for row in remembered} == {style}


def test_base_models_and_those_without_a_system_role_run_and_say_so(
    arguments, tiny_model_dir, tmp_path
):
    base = tiny_model_dir("gpt2", n_positions=4096)
    out = run_audit(arguments("base", model=str(base), pairs=1))
    assert "no chat template" in read_run(out)["notes"][0]
    row = next(r for r in rows_of(out) if r["condition"] == "neutral")
    assert row["prompt"] == row["system_prompt"] + row["user_prompt"]


def test_a_recurrent_model_is_scored_without_sharing_and_says_so(arguments, tiny_model_dir):
    mamba = tiny_model_dir("mamba", chat=True)
    out = run_audit(arguments(model=str(mamba), pairs=1, conditions=["none", "neutral"]))
    assert "recurrent state" in read_run(out)["notes"][-1]
    assert len(rows_of(out)) == 6


def test_a_prompt_longer_than_the_context_names_both_lengths(arguments, tiny_model_dir):
    short = tiny_model_dir("llama", chat=True, max_position_embeddings=256)
    with pytest.raises(InputError, match=r"a prompt of \d+ tokens .* context of 256 tokens"):
        run_audit(arguments(model=str(short)))


def test_summary_and_report_follow_from_the_answers(arguments):
    from unswayed.audit.summary import analyze
    from unswayed.report import write_report

    out = run_audit(arguments())
    analyze(out)
    page = write_report(out)
    first = json.loads((out / "summary.json").read_text("utf-8"))
    assert page.name == "report.html" and (out / "report.md").exists()
    assert first["tests"]["mine"]["n_trials"] == 21
    (out / "summary.json").unlink()
    with pytest.raises(InputError, match="run `unswayed analyze"):
        write_report(out)
    analyze(out)
    assert json.loads((out / "summary.json").read_text("utf-8")) == first


def test_answers_of_another_run_are_refused(arguments):
    """Base and adapter share the model's name, so only the hash tells their answers apart."""
    one, other = run_audit(arguments()), run_audit(arguments(out="other", seed=1))
    assert read_answers(one).num_rows == read_answers(other).num_rows
    (one / "answers.parquet").write_bytes((other / "answers.parquet").read_bytes())
    with pytest.raises(InputError, match="changed, or comes from another run"):
        read_answers(one)
