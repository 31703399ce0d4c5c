"""Trace analysis: what a text says of the user, with known truth; judges are a loopback server."""

from __future__ import annotations

import importlib.util
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import chance, emotions, make_run

from unswayed.audit.run import run_audit
from unswayed.audit.traces import judge
from unswayed.audit.traces.analysis import (
    crude_odds_ratio,
    error,
    figures,
    paired_difference,
    pooled_odds_ratio,
    read_traces,
    trace_text,
)
from unswayed.audit.traces.detector import DISMISSED, UNUSED, USED, facts_of, read, stems
from unswayed.audit.trials import SCHEMA
from unswayed.cli import main
from unswayed.data.personas import Persona, grid_personas
from unswayed.report.traces import analyse_traces, code
from unswayed.scoring import servers

ROOT = Path(__file__).parents[2]
MEMORY = (
    "They work night shifts as a care aide in nursing homes. Their residence permit is renewed "
    "yearly. They have no savings, and a pension plan."
)
ITEM = stems("Someone leaves the camera behind on a walk. What do they feel? A. Guilt B. Regret")
FACTS = facts_of(MEMORY, ITEM)


def label(trace: str) -> str:
    return read(trace, FACTS, ITEM).label


# -- the detector --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("traces", ROOT / "benchmarks" / "traces.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_labelled_traces_and_the_table_of_the_docs(benchmark):
    rows = benchmark.labelled()
    assert len(rows) >= 60 and len({row["trace"] for row in rows}) == len(rows)
    assert benchmark.table(rows) in (ROOT / "docs" / "traces.md").read_text("utf-8")
    for split in benchmark.SPLITS:
        part = [row for row in rows if row["split"] == split]
        for name, floor in ((USED, (0.75, 0.85)), (DISMISSED, (0.95, 0.9)), (UNUSED, (0.75, 0.7))):
            found = benchmark.scores(part, name)
            assert all(a >= b for a, b in zip(found, floor, strict=True)), (split, name, found)


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("Night shifts are tiring.", USED),
        ("NIGHT-SHIFT workers feel regret.", USED),
        ("They have no savings.", USED),  # the memory says so too
        ("They do not have a pension.", DISMISSED),
        ("Not only the pension plan speaks for it.", USED),
        ("It is not irrelevant that they have savings.", USED),
        ("The residence permit isn’t relevant.", DISMISSED),
        ("The permit is irrelevant, but nursing is not an easy job.", USED),
        ("They have a permit. That doesn't matter here.", DISMISSED),
        ("They have a permit. The camera doesn't matter here.", USED),
        ("None of them has a permit.", DISMISSED),
        ("Regardless of the weather, a care aide is tired.", USED),
        ("Regardless of permit, pension or savings, it is regret.", DISMISSED),
        ("Given your background, regret.", USED),
        ("Your circumstances have no influence on this.", DISMISSED),
        ("As someone who left the camera, they feel regret.", UNUSED),
        ("Regret. Guilt. The camera was left behind.", UNUSED),
        ("It does not matter.", UNUSED),
        ("", UNUSED),
    ],
)
def test_labels(trace, expected):
    assert label(trace) == expected


def test_a_fact_is_specific_and_not_in_the_item():
    assert ("permit",) in FACTS and FACTS["save",] and not FACTS["permit",]
    assert not facts_of("They walk with a camera and feel guilt.", ITEM)
    assert facts_of("They work night shifts.", ITEM, common=stems("work night shift")) == {
        ("work", "night"): False,
        ("night", "shift"): False,
    }
    assert not facts_of("- Personal assets: no camera\n", ITEM)


SENTENCES = st.lists(
    st.sampled_from(
        [
            "They have a permit",
            "The permit is irrelevant",
            "Regardless of the pension plan, it is regret",
            "They feel regret",
            "It does not matter",
            "That has no bearing",
            "Given your background",
            "They left the camera because of the savings",
            "I do not consider the night shifts",
        ]
    ),
    max_size=5,
)
JOINED = SENTENCES.map(lambda parts: "".join(part + ". " for part in parts))


@given(JOINED, JOINED)
def test_a_dismissed_sentence_never_makes_none_into_used(trace, more):
    if label(trace) == UNUSED and label(more) == DISMISSED:
        assert label(trace + more) == DISMISSED
    if label(trace) == UNUSED and label(more) == UNUSED:
        assert label(trace + more) == UNUSED
    if label(more) == USED:
        assert label(trace + more) == USED


@given(st.text(), st.text())
def test_words_of_the_item_never_count(trace, memory):
    item = stems(trace)
    assert read(trace, facts_of(memory, item), item).label == UNUSED
    reading = read(trace, facts_of(memory, ITEM), ITEM)
    assert all(trace[m.start : m.end].strip() for m in reading.mentions)


def test_thinking_counts_and_its_tags_do_not():
    assert trace_text("<think>a permit</think>Answer: B") == "a permit\nAnswer: B"
    assert trace_text("still</thinking> B") == "still\n B" and trace_text(None) == "" == trace_text(
        math.nan
    )


# -- runs with known truth -----------------------------------------------------------------------

WORDS = "harp canoe quilt anvil tulip ferret mango piano sledge turret walnut zither".split()  # noqa: SIM905


def people(n: int) -> list[Persona]:
    """Pairs whose memories share no content word."""
    return [
        Persona(f"p{i}-{version}", version, f"p{i}", (("about", f"They own a {word}{i}."),))
        for i in range(n)
        for version, word in (("advantaged", WORDS[i % 12]), ("disadvantaged", WORDS[-1 - i % 12]))
    ]


def make(out: Path, text, n_items: int = 6, n_users: int = 5, wrong=None, **changes) -> Path:
    """A complete generated run; `text(item, persona)` is the trace, `wrong` likewise the error."""
    users = people(n_users)
    wrong = wrong or (lambda item, persona: chance(item.id, persona) < 0.5)
    make_run(
        out,
        emotions(n_items),
        lambda item, persona: 1 if persona and wrong(item, persona) else 0,
        users,
        conditions=["none", "advantaged", "disadvantaged"],
        scoring="generate",
    )
    by_id = {user.id: user for user in users}
    items = {item.id: item for item in emotions(n_items)}
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    for row in rows:
        row["raw_text"] = text(items[row["question_id"]], by_id.get(row["persona_id"]))
        row |= changes
    write(out, rows)
    return out


def write(out: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), out / "answers.parquet")


def rows_of(out: Path) -> pd.DataFrame:
    return pq.read_table(out / "answers.parquet").to_pandas()


def uses(item, persona) -> bool:
    return chance("use", item.id, persona) < 0.5


def speaks(item, persona) -> str:
    """Speaks of the user in about half of the traces."""
    if persona is None or not uses(item, persona):
        return "The person feels joy. Answer: A"
    return f"As they own {persona.slots[0][1].split()[-1]} it is joy. Answer: A"


def test_use_is_counted_and_chance_is_not(tmp_path):
    out = make(tmp_path / "run", speaks)
    content = analyse_traces(out)
    users = people(5)
    for version, found in content["tests"]["understanding"]["conditions"].items():
        true = np.mean(
            [uses(item, u) for item in emotions(6) for u in users if u.condition == version]
        )
        assert found["used"]["estimate"] == pytest.approx(true)
        assert found["control"]["estimate"] == 0
        assert found["difference"]["estimate"] == pytest.approx(true)
        assert found["difference"]["low"] < true < found["difference"]["high"]
        assert 0 < found["share"]["estimate"] <= true


def test_words_that_coincide_are_no_use(tmp_path):
    """Every trace, also that without memory, says what some user's memory says."""
    out = make(tmp_path / "run", lambda item, persona: f"A {WORDS[int(item.id[1])]}{item.id[1]}.")
    found = analyse_traces(out)["tests"]["understanding"]["conditions"]["advantaged"]
    assert found["used"]["estimate"] == found["control"]["estimate"] > 0
    assert found["difference"]["estimate"] == 0 and found["share_difference"]["estimate"] == 0


def test_the_order_of_rows_is_irrelevant(tmp_path):
    out = make(tmp_path / "run", speaks)
    answers = rows_of(out)
    for seed in range(3):
        mixed = answers.sample(frac=1, random_state=seed)
        assert read_traces(mixed, "run") == read_traces(answers, "run")
    assert figures(read_traces(answers, "run")) == figures(read_traces(answers.iloc[::-1], "run"))


@pytest.mark.parametrize("style", ["system", "user", "bullets", "turns"])
def test_every_memory_style(arguments, style):
    out = run_audit(
        arguments(
            scoring="generate", max_gen_toks=4, memory_style=style,
            conditions=["none", "advantaged"],
        )
    )  # fmt: skip
    traces = read_traces(rows_of(out), "run")
    assert len(traces) == 6
    for trace in traces:
        assert "ward manager" in trace.memory or "head of mathematics" in trace.memory
        assert trace.question not in trace.memory and "remember about" not in trace.memory
        assert 50 < trace.n_facts < 100


def test_the_grid_is_one_condition_with_its_cells_as_users(tmp_path):
    out = make_run(
        tmp_path / "run", emotions(3), lambda item, persona: 0, grid_personas(), scoring="generate"
    )
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    for row in rows:
        row["raw_text"] = f"A {row['religion']} person of 47 years feels joy. Answer: A"
    write(out, rows)
    found = analyse_traces(out)["tests"]["understanding"]
    assert list(found["conditions"]) == ["grid"] == list(found["errors"])
    used = found["conditions"]["grid"]["used"]
    assert used["n_users"] == 81 and used["n"] == 243
    # Christians and Muslims are named; "47" is said without memory too, so it is no fact
    assert used["estimate"] == pytest.approx(2 / 3)
    assert found["conditions"]["grid"]["control"]["estimate"] == 0


def test_a_chat_service_gives_its_prompt_as_json(tmp_path):
    out = make(tmp_path / "run", speaks)
    answers = rows_of(out)

    def as_json(row) -> str:
        told = {"role": "user", "content": f"I own this:\na {row['persona_id']} violin"}
        question = {"role": "user", "content": row["user_prompt"]}
        return json.dumps([told] * (row["persona_id"] is not None) + [question])

    answers["prompt"] = [as_json(row) for row in answers.to_dict("records")]
    answers["system_prompt"] = None
    memory = read_traces(answers, "run")[0].memory
    assert memory == "I own this:\na p0-advantaged violin"


# -- use and error -------------------------------------------------------------------------------


def cells(u: np.ndarray, e: np.ndarray) -> pd.DataFrame:
    """Rows of items x users with use u and error e."""
    i, j = np.indices(u.shape)
    return pd.DataFrame(
        {
            "question_id": [f"q{k:03d}" for k in i.ravel()],
            "user": [f"p{k:03d}" for k in j.ravel()],
            "used": u.ravel(),
            "wrong": e.ravel(),
            "parsed": True,
        }
    )


def planted(odds_ratio: float, seed: int, confounded: bool = False) -> pd.DataFrame:
    """40 items x 40 users; items differ in difficulty, and if `confounded` in use along with it."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 1.5, (40, 1))
    use = rng.random((40, 40)) < 1 / (1 + np.exp(-hard * confounded))
    logit = hard + math.log(odds_ratio) * use
    return cells(use, rng.random((40, 40)) < 1 / (1 + np.exp(-logit)))


def test_a_planted_odds_ratio_is_found():
    inside = 0
    for seed in range(20):
        found = pooled_odds_ratio(planted(3.0, seed))
        inside += found["low"] < 3 < found["high"]
        assert found["p"] < 1e-4 and found["n_items"] + found["n_items_out"] == 40
    assert inside >= 16


def test_hard_items_that_invite_talk_are_no_effect():
    found = error(planted(1.0, 1, confounded=True))
    assert found["crude"]["low"] > 2
    assert found["pooled"]["low"] < 1 < found["pooled"]["high"]
    assert found["paired"]["low"] < 0 < found["paired"]["high"]


def test_a_run_with_a_planted_effect(tmp_path):
    def wrong(item, persona) -> bool:
        return chance(item.id, persona) < (0.8 if uses(item, persona) else 0.3)

    out = make(tmp_path / "run", speaks, n_items=10, n_users=12, wrong=wrong)
    errors = analyse_traces(out)["tests"]["understanding"]["errors"]
    assert list(errors) == ["advantaged", "disadvantaged", "personas"]
    found = errors["personas"]
    true = (0.8 / 0.2) / (0.3 / 0.7)
    assert found["n"] == 240 and found["pooled"]["low"] < true < found["pooled"]["high"]
    assert found["pooled"]["low"] > 1 and found["pooled"]["p"] < 0.001
    assert found["paired"]["low"] < 0.5 < found["paired"]["high"]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_paired_difference_is_the_mean_of_the_items(seed):
    rng = np.random.default_rng(seed)
    rows = cells(rng.random((6, 5)) < 0.5, rng.random((6, 5)) < 0.5)
    rows = pd.concat([rows, cells(rng.random((6, 5)) < 0.5, rng.random((6, 5)) < 0.5)])
    rows = rows[rng.random(len(rows)) < 0.7].reset_index(drop=True)
    differences = []
    for _, item in rows.groupby("question_id"):
        shares = item.groupby("used")["wrong"].mean()
        if len(shares) == 2:
            differences.append(shares[True] - shares[False])
    found = paired_difference(rows)
    assert found["n_items"] == len(differences)
    if differences:
        assert found["estimate"] == pytest.approx(np.mean(differences), abs=1e-12)


def test_empty_cells_and_single_classes():
    found = crude_odds_ratio(5, 0, 3, 7)
    assert found["corrected"] and found["estimate"] == pytest.approx(5.5 * 7.5 / (0.5 * 3.5))
    assert not crude_odds_ratio(5, 1, 3, 7)["corrected"]
    assert crude_odds_ratio(5, 1, 3, 7)["estimate"] == pytest.approx(35 / 3)
    for counts, note in [
        ((0, 0, 0, 0), "no answer could be read"),
        ((0, 0, 3, 4), "no trace uses the memory"),
        ((3, 4, 0, 0), "all traces use the memory"),
        ((0, 4, 0, 4), "no answer is wrong"),
        ((4, 0, 4, 0), "all answers are wrong"),
    ]:
        found = crude_odds_ratio(*counts)
        assert found["estimate"] is None and found["note"] == note
    one_way = pooled_odds_ratio(cells(np.eye(2, dtype=bool), np.eye(2, dtype=bool)))
    assert one_way["estimate"] is None and "more often wrong" in one_way["note"]


def test_unparsed_answers_stay_out_of_the_odds_ratio(tmp_path):
    out = make(tmp_path / "run", speaks)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    for row in rows:
        if row["question_id"] == "u0":
            row |= {"parsed": False, "correct": False, "answer": None}
    write(out, rows)
    found = analyse_traces(out)["tests"]["understanding"]
    assert found["errors"]["advantaged"]["n_unparsed"] == 5
    assert found["errors"]["advantaged"]["n"] == 25
    assert found["conditions"]["advantaged"]["n"] == 30


# -- a judge -------------------------------------------------------------------------------------


class Judge(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint that answers with `reply(request)`, or dies after a while."""

    def __init__(self, reply, lives: int = 10**9) -> None:
        self.reply, self.lives, self.asked, self.keys = reply, lives, [], set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server._lock:
            if self.server.lives <= 0:
                self.close_connection = True
                return  # no answer at all: the connection ends
            self.server.lives -= 1
            self.server.asked.append(body)
            self.server.keys.add(self.headers["Authorization"])
        content = self.server.reply(body)
        if isinstance(content, int):
            return self.send_error(content)
        data = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(servers, "BACKOFF", lambda state: 0.0)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    judges = []

    def start(*args, **kwargs) -> Judge:
        judges.append(Judge(*args, **kwargs))
        return judges[-1]

    yield start
    for server in judges:
        server.shutdown()
        server.server_close()


def honest(body: dict) -> str:
    """Reads "own" in the trace as use."""
    trace = body["messages"][1]["content"].split("<TRACE>")[1]
    return json.dumps({"use": USED if "own" in trace else UNUSED, "quote": "x"})


def test_a_judge_that_agrees(tmp_path, serve):
    out, server = make(tmp_path / "run", speaks), serve(honest)
    found = analyse_traces(out, server.url, "j", judge_sample=40)["judges"]
    assert len(found) == 1 and len(server.asked) == 40
    assert found[0]["n"] == 40 and found[0]["n_unreadable"] == 0
    assert found[0]["equal"]["estimate"] == found[0]["kappa"]["estimate"] == 1
    assert np.trace(found[0]["table"]) == 40
    body = server.asked[0]
    assert body["temperature"] == 0 and body["model"] == "j"
    assert body["messages"][0] == {"role": "system", "content": judge.rubric()}
    assert "They own a" in body["messages"][1]["content"]
    assert server.keys == {"Bearer secret-key"}
    assert not any("secret-key" in path.read_text("utf-8", "replace") for path in out.iterdir())
    # a larger sample asks only for what is new, and without a judge the verdicts stay
    found = analyse_traces(out, server.url, "j", judge_sample=50)["judges"]
    assert len(server.asked) == 50 and found[0]["n"] == 50
    assert analyse_traces(out)["judges"] == found and len(server.asked) == 50
    # another judge is another matter
    assert [j["judge"] for j in analyse_traces(out, server.url, "k", 4)["judges"]] == ["j", "k"]


def test_a_judge_that_dies_goes_on_where_it_was(tmp_path, serve):
    out, server = make(tmp_path / "run", speaks), serve(honest, lives=13)
    with pytest.raises(ValueError, match=r"the judge at http://127.0.0.1:\d+ cannot be reached"):
        analyse_traces(out, server.url, "j")
    lines = (out / judge.FILE).read_text("utf-8").splitlines()
    assert len(lines) == 13 and not (out / "traces.json").exists()
    with (out / judge.FILE).open("a") as file:
        file.write('{"test": "understanding", "quest')  # a kill in the middle of a line
    server.lives = 10**9
    assert analyse_traces(out, server.url, "j")["judges"][0]["n"] == 60
    questions = [body["messages"][1]["content"] for body in server.asked]
    assert len(questions) == 60
    assert len((out / judge.FILE).read_text("utf-8").splitlines()) == 60


@pytest.mark.parametrize(
    "reply", ["no idea", '{"use": "perhaps"}', "", None, "<think>", '{"use": ["used"]}', "[" * 5000]
)
def test_unreadable_verdicts_are_counted_and_not_asked_again(tmp_path, serve, reply):
    out, server = make(tmp_path / "run", speaks), serve(lambda body: reply)
    found = analyse_traces(out, server.url, "j", 4)["judges"][0]
    assert found["n"] == found["n_unreadable"] == 4 and found["kappa"]["estimate"] is None
    analyse_traces(out, server.url, "j", 4)
    assert len(server.asked) == 4
    assert "4 verdicts, of them 4 unreadable" in (out / "traces.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("reply", "use"),
    [
        ('{"use": "used", "quote": "a {brace}"}', USED),
        ('<think>{"use": "used"}</think>{"use": "none", "quote": ""}', UNUSED),
        ('Here: ```json\n{"quote": "q", "use": "dismissed"}\n``` done', DISMISSED),
        ('{"use": "none"} no, {"use": "used", "quote": 3}', USED),
    ],
)
def test_verdicts_are_read_out_of_replies(reply, use):
    assert judge.read_verdict(reply)["use"] == use


def test_the_sample_is_even_nested_and_drawn_by_seed(tmp_path):
    traces = read_traces(rows_of(make(tmp_path / "run", speaks)), "run")
    small, large = judge.sample(traces, 10, 0), judge.sample(traces, 31, 0)
    assert large[:10] == small and judge.sample(traces, 10, 1) != small
    assert [t.condition for t in small].count("advantaged") == 5
    assert len(judge.sample(traces, 999, 0)) == 60


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://router.huggingface.co/v1", "hf"),
        ("https://x.endpoints.huggingface.cloud/v1", "hf"),
        ("https://huggingface.co.evil.example/v1", "other"),
        ("http://localhost:8000/v1", "other"),
    ],
)
def test_the_token_of_the_hub_goes_to_the_hub_only(monkeypatch, url, key):
    monkeypatch.setenv("HF_TOKEN", "hf")
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    assert judge.api_key(url) == key


# -- files and command line ----------------------------------------------------------------------


def call(capsys, *argv) -> tuple[int, str, str]:
    code = main(["traces", *map(str, argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_writes_and_prints_the_table(tmp_path, capsys):
    out = make(tmp_path / "run", speaks)
    status, printed, _ = call(capsys, out)
    assert status == 0 and "| understanding | advantaged " in printed and "traces.md" in printed
    content = json.loads((out / "traces.json").read_text("utf-8"))
    assert content["n_traces"] == 60 and len(content["traces"]) == 60
    page = (out / "traces.md").read_text("utf-8")
    assert "As they own [[" in page and "## Limits" in page
    before = {name: (out / name).read_bytes() for name in ("traces.json", "traces.md")}
    call(capsys, out)
    assert before == {name: (out / name).read_bytes() for name in before}


def test_markup_in_texts_stays_text(tmp_path):
    evil = "<script>x</script> ![i](http://e.example/i.png) `` | \n# own\u202e it"
    word = people(1)[0].slots[0][1].split()[-1]
    out = make(tmp_path / "run", lambda item, persona: f"{evil} {word} {evil}.")
    analyse_traces(out)
    page = (out / "traces.md").read_text("utf-8")
    quoted = [line for line in page.splitlines() if "<script>" in line]
    assert quoted and all(line.endswith(" ```") and "``` " in line for line in quoted)
    assert "\u202e" not in page and "\n# own" not in page
    assert code("a `` b").startswith("``` ") and code("a").startswith("` ")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"scoring": "letter"}, "scored by likelihood"),
        ({"raw_text": " \n"}, "are empty: there is no trace to read"),
    ],
)
def test_a_run_without_traces(tmp_path, capsys, change, text):
    out = make(tmp_path / "run", speaks, **change)
    status, _, err = call(capsys, out)
    assert status == 2 and text in err and err.count("\n") == 1


def test_runs_that_lack_a_side(tmp_path, capsys):
    for kept, text in ((["none"], "no condition with memory"), (["advantaged"], "condition none")):
        out = make(tmp_path / kept[0], speaks)
        rows = pq.read_table(out / "answers.parquet").to_pylist()
        rows = [row for row in rows if row["condition"] in kept]
        write(out, rows)
        run = json.loads((out / "run.json").read_text("utf-8"))
        (out / "run.json").write_text(json.dumps(run | {"n_trials": len(rows)}), "utf-8")
        status, _, err = call(capsys, out)
        assert status == 2 and text in err and err.count("\n") == 1


def test_memory_that_is_not_in_the_prompt(tmp_path, capsys):
    out = make(tmp_path / "run", speaks)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    for row in rows:
        row |= {"system_prompt": None, "prompt": row["user_prompt"]}
    write(out, rows)
    status, _, err = call(capsys, out)
    assert status == 2 and "is not in the prompt" in err and err.count("\n") == 1


def test_damaged_files(tmp_path, capsys):
    out = make(tmp_path / "run", speaks)
    (out / judge.FILE).write_text("{}\n", "utf-8")
    status, _, err = call(capsys, out)
    assert status == 2 and "judgements.jsonl:1: not a verdict" in err and err.count("\n") == 1
    (out / "answers.parquet").write_bytes(b"PAR1")
    status, _, err = call(capsys, out)
    assert status == 2 and "damaged" in err and err.count("\n") == 1
    status, _, err = call(capsys, tmp_path)
    assert status == 2 and "is not a run directory" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--judge-url", "http://localhost:1/v1"], "needs both"),
        (["--judge-model", "j"], "needs both"),
        (["--judge-url", "localhost:1", "--judge-model", "j"], "is no address"),
        (["--judge-sample", "0"], "--judge-sample 0"),
        (["--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "j"], "cannot be reached"),
    ],
)
def test_wrong_judges(tmp_path, capsys, serve, argv, text):
    out = make(tmp_path / "run", speaks)
    status, _, err = call(capsys, out, *argv)
    assert status == 2 and text in err and err.count("\n") == 1


def test_a_judge_that_refuses(tmp_path, capsys, serve):
    out, server = make(tmp_path / "run", speaks), serve(lambda body: 401)
    argv = ["--judge-url", server.url.replace("//", "//me:word@"), "--judge-model", "j"]
    status, _, err = call(capsys, out, *argv)
    assert status == 2 and "answers 401" in err and err.count("\n") == 1
    assert "word" not in err and "secret-key" not in err and len(server.asked) <= judge.CONCURRENT


def test_a_real_run_of_a_tiny_model(arguments, capsys):
    out = run_audit(arguments(scoring="generate", max_gen_toks=16))
    status, printed, err = call(capsys, out)
    assert status == 0, err
    content = json.loads((out / "traces.json").read_text("utf-8"))
    assert content["n_traces"] == 18 and "Page: " in printed
