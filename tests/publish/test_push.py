"""Publishing to a double of the Hub on loopback, and reading back over HTTP: data and models.

Every push and every reading is a process of its own, as HF_ENDPOINT is read at import.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset
from loopback import CUT, LFS_FROM, LOST, Hub

from unswayed.cli import main
from unswayed.core.errors import InputError
from unswayed.datasets.trees import Tree, write_tree
from unswayed.publish.local import read_folder
from unswayed.publish.metadata import matching, merged_card, metadata, patterns

TOKEN = "hf_veryverysecret"
REPO = "me/persona_items"
SECRETS = (TOKEN, "signed-secret")  # the second stands in the addresses of uploads
# The waiting between attempts is not what is tested.
PUSH = "import sys, time; time.sleep = lambda s: None; from unswayed.cli import main; " \
    "sys.exit(main())"  # fmt: skip
READ = """
import json, sys
from datasets import get_dataset_config_names, load_dataset
name = sys.argv[1]
tables = {}
for config in get_dataset_config_names(name):
    splits = load_dataset(name, config)
    tables[config] = {split: rows.to_list() for split, rows in splits.items()}
    for split, rows in splits.items():
        assert rows.features == splits[next(iter(splits))].features
json.dump(tables, sys.stdout)
"""
Rows = list[dict]
GRID = {
    "train": [{"id": i, "text": f"grid {i} ü"} for i in range(5)],
    "test": [{"id": 9, "text": ""}],
}
NONE = {"train": [{"id": i, "text": "none"} for i in range(3)]}


def make_tree(folder: Path, configs: dict[str, dict[str, Rows]], text: str = "# Items\n") -> Path:
    entries, described = [], []
    for config, splits in configs.items():
        files, counts = [], []
        for split, rows in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), path)
            files.append({"split": split, "path": f"{config}/{split}-*"})
            counts.append({"name": split, "num_examples": len(rows), "num_bytes": 100})
        features = [{"name": "id", "dtype": "int64"}, {"name": "text", "dtype": "string"}]
        entries.append({"config_name": config, "data_files": files})
        described.append({"config_name": config, "features": features, "splits": counts,
            "download_size": 100, "dataset_size": 100})  # fmt: skip
    front = yaml.safe_dump(
        {"license": "apache-2.0", "dataset_info": described, "configs": entries}, sort_keys=False
    )
    (folder / "README.md").write_text(f"---\n{front}---\n\n{text}", "utf-8")
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with contextlib.closing(Hub(TOKEN)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


Hub.close = Hub.server_close


@pytest.fixture
def environment(hub, tmp_path) -> dict[str, str]:
    home = tmp_path / "hf_home"
    others = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return others | {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture
def push(environment, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """`push(tree, *more, **environment)`: the command; no secret is left anywhere."""

    def run(tree: Path, *more: str, **changed: str) -> subprocess.CompletedProcess:
        repo = () if "--repo_id" in more else ("--repo_id", REPO)
        done = subprocess.run(
            [sys.executable, "-c", PUSH, "publish", str(tree), *repo, *more],
            capture_output=True, text=True, env=environment | changed,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        written = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
        for secret in (*SECRETS, changed.get("HF_TOKEN") or TOKEN):
            assert secret not in done.stdout + done.stderr
            assert not any(secret.encode() in content for content in written)
        return done

    return run


@pytest.fixture
def read_back(environment, tmp_path) -> Callable[[], dict]:
    def read(**changed: str) -> dict:
        fresh = {"HF_HOME": str(tmp_path / "reader")}
        done = subprocess.run(
            [sys.executable, "-c", READ, REPO],
            capture_output=True, text=True, env=environment | fresh | changed,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


def refused(done: subprocess.CompletedProcess) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    lines = [line for line in done.stderr.splitlines() if line.startswith("unswayed: ")]
    assert len(lines) == 1 and done.stderr.endswith(f"{lines[0]}\n"), done.stderr
    return lines[0]


QUESTIONS = """
import sys
from unswayed.datasets.cards import question_source
from unswayed.data.questions import load_questions
spec = sys.argv[1]
print([question.question for question in load_questions([spec])], question_source(spec).where)
"""


def test_questions_are_read_by_config_and_revision(hub, push, environment, tmp_path):
    def publish(word: str) -> str:
        rows = [{"question": f"{word} {i}?", "answer": str(i)} for i in range(2)]
        other = [{"question": "Other?", "answer": "x"}]
        tables = {
            config: {"train": Dataset.from_list(config_rows)}
            for config, config_rows in (("main", rows), ("other", other))
        }
        tree = Tree("asked", tables, {"license": "apache-2.0"}, {}, "Questions.")
        assert push(write_tree(tree, tmp_path / "tree")).returncode == 0
        return hub.repos[REPO].head.oid

    old, new = publish("Old"), publish("New")
    for revision, word, commit in (("", "New", new), (f"@{old}", "Old", old)):
        done = subprocess.run(
            [sys.executable, "-c", QUESTIONS, f"mine=hub:{REPO}:main{revision}"],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"['{word} 0?', '{word} 1?']" in done.stdout and f"`{commit}`" in done.stdout


ANSWERS = """
import json, sys
from unswayed.core.errors import InputError
from unswayed.space.tables import read_answers
try:
    print(json.dumps(read_answers(sys.argv[1]).to_dict("list")))
except InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_answers_that_a_visitor_of_the_space_names(hub, environment, tmp_path):
    """Without the Space's token, at one commit, and whatever the card says."""

    def table(*ids: int) -> bytes:
        pq.write_table(pa.table({"id": ids}), tmp_path / "rows.parquet")
        return (tmp_path / "rows.parquet").read_bytes()

    def read(source: str = f"hub:{REPO}") -> str:
        done = subprocess.run(
            [sys.executable, "-c", ANSWERS, source], capture_output=True, text=True,
            env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    secret = tmp_path / "secret.parquet"
    secret.write_bytes(table(13))
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {secret}\n---\n"
    files = {"README.md": card.encode(), "a.parquet": table(1), "more/b.parquet": table(2, 3)}
    repo = hub.make(REPO)
    first = repo.add("x", files, frozenset({"a.parquet"})).oid
    assert read() == '{"id": [1, 2, 3]}' and read(f"hub:{REPO}:more") == '{"id": [2, 3]}'

    def change(request: str) -> None:  # between the look at the size and the first file
        if "/resolve/" in request and repo.head.oid == first:
            repo.add("y", {"a.parquet": b"huge"}, frozenset())

    hub.behave = change
    assert read() == '{"id": [1, 2, 3]}' and repo.head.oid != first
    assert "holds no table that can be read" in read()
    assert read(f"hub:{REPO}@{first}") == '{"id": [1, 2, 3]}'
    assert "holds no Parquet file" in read(f"hub:{REPO}:nowhere")
    repo.private = True  # the token may read it, the visitor may not
    assert "no public dataset of that name" in read()
    repo.private, hub.behave = False, lambda request: CUT
    assert "no public dataset of that name" in read()


# -- pushing and reading back --------------------------------------------------------------------


def test_first_push_is_read_back(hub, push, read_back, tmp_path):
    tree = make_tree(tmp_path / "tree", {"grid": GRID, "none": NONE})
    (tree / "funnel.json").write_text("{}")
    (tree / ".cache").mkdir()
    (tree / ".cache" / "scratch").write_text("x")
    done = push(tree, "--message", "First")
    repo = hub.repos[REPO]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Published: {hub.url}/datasets/{REPO}/commit/{repo.head.oid}\n"
    assert repo.private and [c.message for c in repo.commits] == ["initial commit", "First"]
    local = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()}
    assert set(repo.head.files) == local - {".cache/scratch"} | {".gitattributes"}
    for path in local - {".cache/scratch"}:
        assert repo.head.files[path] == (tree / path).read_bytes()
    assert repo.head.lfs == {p for p in local if p.endswith(".parquet")}
    assert read_back() == {"grid": GRID, "none": NONE}


def test_the_same_tree_again_changes_nothing(hub, push, tmp_path):
    tree = make_tree(tmp_path / "tree", {"grid": GRID, "none": NONE})
    first, before = push(tree).stdout, hub.state()
    hub.requests.clear()
    done = push(tree)
    assert (done.returncode, done.stdout, hub.state()) == (0, first, before)
    assert done.stderr.startswith("No files have been modified") and done.stderr.count("\n") == 1
    assert not any("PUT" in request or "/commit/" in request for request in hub.requests)


def test_another_config_stays(hub, push, read_back, tmp_path):
    assert push(make_tree(tmp_path / "a", {"grid": GRID})).returncode == 0
    old = dict(hub.repos[REPO].head.files)
    tree = make_tree(tmp_path / "b", {"none": NONE}, "# New text\n")
    assert push(tree).returncode == 0
    files = hub.repos[REPO].head.files
    assert all(files[path] == old[path] for path in old if path.startswith("grid/"))
    assert b"# New text" in files["README.md"]
    assert read_back() == {"none": NONE, "grid": GRID}
    before = hub.state()
    assert push(tree).returncode == 0 and hub.state() == before  # the merged card is stable


def test_a_removed_split_vanishes(hub, push, read_back, tmp_path):
    push(make_tree(tmp_path / "a", {"grid": GRID, "none": NONE}))
    smaller = {"train": GRID["train"][:2]}
    assert push(make_tree(tmp_path / "b", {"grid": smaller})).returncode == 0
    repo = hub.repos[REPO]
    assert [p for p in repo.head.files if p.startswith("grid")] == [
        "grid/train-00000-of-00001.parquet"
    ]
    assert read_back() == {"grid": smaller, "none": NONE} and len(repo.commits) == 3


def test_fewer_shards_leave_none_behind(hub, push, tmp_path):
    tree = make_tree(tmp_path / "a", {"grid": GRID})
    (tree / "grid" / "train-00001-of-00002.parquet").write_bytes(
        (tree / "grid" / "train-00000-of-00001.parquet").read_bytes()
    )
    card = tree / "README.md"
    card.write_text(card.read_text().replace("num_examples: 5", "num_examples: 10"))
    assert push(tree).returncode == 0 and len(hub.repos[REPO].head.files) == 5
    assert push(make_tree(tmp_path / "b", {"grid": GRID})).returncode == 0
    assert len(hub.repos[REPO].head.files) == 4


def test_files_that_share_a_folder(hub, push, tmp_path):
    """Another config's stay; Parquet files that nobody names would become a part of ours."""
    card = b"---\nconfigs:\n- config_name: extra\n  data_files: none/extra.parquet\n---\n"
    files = {"README.md": card, "none/extra.parquet": b"1", "none/train-9.parquet": b"2"}
    hub.make(REPO).add("x", files | {"none/notes.txt": b"3"}, frozenset())
    assert push(make_tree(tmp_path / "tree", {"none": NONE})).returncode == 0
    left = {p for p in hub.repos[REPO].head.files if p.startswith("none/")}
    assert left == {"none/extra.parquet", "none/notes.txt", "none/train-00000-of-00001.parquet"}


def test_large_files_go_through_lfs(hub, push, read_back, tmp_path):
    rows = [{"id": i, "text": os.urandom(2048).hex()} for i in range(6000)]
    tree = make_tree(tmp_path / "tree", {"big": {"train": rows}})
    (tree / "stages.bin").write_bytes(os.urandom(LFS_FROM + 2**20))
    hub.behave = lambda request: CUT if request.startswith("PUT") and cuts.pop() else None
    cuts = [False] * 9 + [True, True]
    done = push(tree)
    assert done.returncode == 0 and "Retrying in" in done.stderr  # huggingface_hub's own retry
    assert min(map(len, hub.objects.values())) > LFS_FROM and len(hub.objects) == 2
    assert hub.repos[REPO].head.lfs == {"stages.bin", "big/train-00000-of-00001.parquet"}
    assert read_back() == {"big": {"train": rows}}


@pytest.mark.parametrize(("more", "private"), [((), True), (("--public",), False)])
def test_visibility_of_a_new_repository(hub, push, tmp_path, more, private):
    assert push(make_tree(tmp_path / "tree", {"none": NONE}), *more).returncode == 0
    assert hub.repos[REPO].private is private


@pytest.mark.parametrize("private", [True, False])
def test_visibility_of_a_repository_that_exists_stays(hub, push, tmp_path, private):
    hub.make(REPO, private=private)
    done = push(make_tree(tmp_path / "tree", {"none": NONE}), *(["--public"] if private else []))
    assert done.returncode == 0 and hub.repos[REPO].private is private
    assert ("is public, and stays so" in done.stderr) is not private


def test_a_space(hub, push, tmp_path):
    """Private when new, one commit a push, no hidden file, and what the tree no longer has goes."""
    tree = tmp_path / "space"
    (tree / "unswayed").mkdir(parents=True)
    pins = {"sdk": "gradio", "sdk_version": "6.31.0", "python_version": "3.11"}
    card = yaml.safe_dump(pins | {"app_file": "app.py", "license": "apache-2.0"})
    (tree / "README.md").write_text(f"---\n{card}---\n\nSee it.\n", "utf-8")
    (tree / "app.py").write_text("import unswayed\n")
    (tree / "unswayed" / "old.py").write_text("1\n")
    refused(push(tree))  # any app could lie there
    built = "unswayed-0.1.dist-info/METADATA"
    (tree / built).parent.mkdir()
    (tree / built).write_text("Name: unswayed\n")
    (tree / ".env").write_text("TOKEN=1\n")
    assert push(tree).returncode == 0
    repo = hub.repos[f"spaces/{REPO}"]
    assert repo.private and len(repo.commits) == 2  # the Hub's own is the first
    assert repo.head.files.keys() == {
        ".gitattributes", "README.md", "app.py", "unswayed/old.py", built
    }  # fmt: skip
    (tree / "unswayed" / "old.py").unlink()
    (tree / "unswayed" / "new.py").write_text("2\n")
    assert push(tree).returncode == 0
    assert len(repo.commits) == 3
    assert repo.head.files.keys() == {
        ".gitattributes", "README.md", "app.py", "unswayed/new.py", built
    }  # fmt: skip
    assert repo.head.files["unswayed/new.py"] == b"2\n"
    (tree / "app.py").unlink()
    refused(push(tree))
    (tree / "app.py").write_text("")
    (tree / "README.md").write_text("---\nsdk: gradio\n---\n")
    assert "sdk_version is missing, and a Space needs it" in refused(push(tree))
    assert len(repo.commits) == 3


@pytest.mark.parametrize("name", ["app.py", "index.html", "unswayed/__init__.py"])
def test_another_space_is_not_emptied(hub, push, tmp_path, name):
    tree = tmp_path / "space"
    (tree / "unswayed-0.1.dist-info").mkdir(parents=True)
    (tree / "unswayed-0.1.dist-info" / "METADATA").write_text("Name: unswayed\n")
    (tree / "README.md").write_text(
        "---\nsdk: gradio\nsdk_version: 6.0.0\npython_version: '3.11'\napp_file: app.py\n"
        "license: mit\n---\n"
    )
    (tree / "app.py").write_text("import unswayed\n")
    repo = hub.make(f"spaces/{REPO}")
    repo.add("theirs", repo.head.files | {name: b"theirs", "README.md": b"# Hi\n"}, frozenset())
    before = hub.state()
    assert f"{REPO} holds another Space ({name})" in refused(push(tree))
    assert hub.state() == before
    repo.add("emptied", {"README.md": b"# Hi\n"}, frozenset())
    assert push(tree).returncode == 0 and "app.py" in repo.head.files


# -- what goes wrong on the way ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "trouble"),
    [
        ("PUT /lfs", CUT),
        ("PUT /lfs", (500, {"error": "oops"})),
        ("/preupload/", (500, {"error": "oops"})),
        ("/batch", (503, {"error": "oops"})),
        ("/verify", CUT),
        ("/commit/", CUT),
    ],
)
def test_a_failed_upload_leaves_all_as_it_was_and_a_retry_completes(
    hub, push, tmp_path, where, trouble
):
    push(make_tree(tmp_path / "a", {"grid": GRID}))
    before = hub.state()
    hub.behave = lambda request: trouble if where in request else None
    tree = make_tree(tmp_path / "b", {"grid": {"train": NONE["train"]}, "none": NONE})
    line = refused(push(tree))
    assert ("no lasting connection to" in line) == (trouble == CUT)
    assert "run the same command again" in line and hub.state() == before
    hub.behave = lambda request: None
    assert push(tree).returncode == 0
    head = hub.repos[REPO].head
    assert len(head.files) == 4 and len(hub.repos[REPO].commits) == 3
    assert head.files["README.md"] == (tree / "README.md").read_bytes()


def test_what_is_uploaded_is_not_sent_again(hub, push, tmp_path):
    tree = make_tree(tmp_path / "tree", {"grid": GRID, "none": NONE})
    hub.behave = lambda request: (503, {}) if "/commit/" in request else None
    refused(push(tree))
    assert set(hub.repos[REPO].head.files) == {".gitattributes"}
    hub.behave = lambda request: None
    hub.requests.clear()
    assert push(tree).returncode == 0
    assert not any("PUT" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ("/create", 503), ("GET /api/datasets", 500), ("/tree/", 503), ("/resolve/", 503),
        ("/validate-yaml", 500), ("/commit/", 503), ("/commit/", 409), ("/commit/", 412),
    ],
)  # fmt: skip
def test_passing_troubles_are_waited_out(hub, push, tmp_path, where, status):
    hub.make(REPO, private=True).head.files["README.md"] = b"# Empty\n"
    left = [1, 1]
    hub.behave = lambda a: (
        (status, {"error": "busy"}) if where in a and left and left.pop() else None
    )
    done = push(make_tree(tmp_path / "tree", {"none": NONE}))
    assert done.returncode == 0 and not left and len(hub.repos[REPO].commits) == 2
    ours = f"answers {status} (busy) for {REPO}: trying again in 3 s"
    assert ours in done.stderr or "Retrying in" in done.stderr  # huggingface_hub's own
    assert done.stderr.count("Retrying in 1s") <= 1  # each message once


def test_others_commit_meanwhile_and_both_stay(hub, push, read_back, tmp_path):
    push(make_tree(tmp_path / "a", {"grid": GRID}))
    theirs = dict(hub.repos[REPO].head.files)
    push(make_tree(tmp_path / "a", {"grid": GRID}, "# Other\n"))
    repo, others = hub.repos[REPO], [1]

    def meanwhile(request: str) -> None:
        if "/commit/" in request and others:
            others.pop()
            repo.add("theirs", theirs | {"NOTES.md": b"hi"}, repo.head.lfs)

    hub.behave = meanwhile
    done = push(make_tree(tmp_path / "b", {"none": NONE}))
    assert done.returncode == 0 and "answers 412" in done.stderr
    assert repo.head.files["NOTES.md"] == b"hi" and len(repo.commits) == 5
    assert read_back() == {"none": NONE, "grid": GRID}


def test_a_lost_reply_does_not_commit_twice(hub, push, tmp_path):
    lost = [1]
    hub.behave = lambda request: LOST if "/commit/" in request and lost and lost.pop() else None
    done = push(make_tree(tmp_path / "tree", {"none": NONE}))
    assert done.returncode == 0 and len(hub.repos[REPO].commits) == 2
    assert done.stdout.strip().endswith(hub.repos[REPO].head.oid)


@pytest.mark.parametrize(
    ("where", "reply", "texts"),
    [
        ("/create", (401, {"error": f"bad token {TOKEN}"}),
            ("401 (bad token <token>)", "hf auth login", "HF_TOKEN")),
        ("/create", (403, {"error": "You don't have the rights"}),
            ("403 (You don't have the rights)", "ask for write access")),
        ("/preupload/", (403, {"error": "read only"}), ("403 (read only)", "ask for write access")),
        ("/commit/", (403, {"error": "read only"}), ("403 (read only)", "ask for write access")),
        ("PUT", (403, b"<Error>Request has expired</Error>"), ("403 (<Error>", "write access")),
        ("/commit/", (409, {"error": "busy"}), ("409 (busy)", "others are changing it", "again")),
        ("/commit/", (412, {"error": "moved"}), ("412 (moved)", "others are changing it")),
        ("/commit/", (400, {"error": "path too long"}),
            ("400 (path too long)", "mend what it names")),
        ("/commit/", (404, {"error": "gone"}, {"X-Error-Code": "RepoNotFound"}),
            ("404 (gone)", "--repo_id")),
        ("/commit/", (503, {"error": "down"}), ("503 (down)", "run the same command again")),
        ("/preupload/", (429, {"error": "slow down"}), ("429 (slow down)", "wait")),
        ("/batch", (413, {"error": "huge"}), ("413 (huge)", "larger than the Hub takes")),
        ("/create", (402, {"error": "pay"}), ("402 (pay)",)),
        ("/validate-yaml", (400, {"errors": [{"message": "license is unknown"}]}),
            ("license is unknown",)),
        ("/batch", (200, {"objects": 1}), ("Malformed response from server",)),
        ("/create", (200, b"<html>log in to the network</html>"), ("failed (Expecting value",)),
    ],
)  # fmt: skip
def test_lasting_refusals_are_one_line(hub, push, tmp_path, where, reply, texts):
    hub.behave = lambda request: reply if where in request else None
    line = refused(push(make_tree(tmp_path / "tree", {"none": NONE})))
    assert all(text in line for text in texts), line
    assert all(set(r.head.files) == {".gitattributes"} for r in hub.repos.values())


def test_a_wrong_token(hub, push, tmp_path):
    tree = make_tree(tmp_path / "tree", {"none": NONE})
    line = refused(push(tree, HF_TOKEN="hf_another"))
    assert "answers 401" in line and "hf auth login" in line and hub.repos == {}
    line = refused(push(tree, HF_TOKEN=""))
    assert "no token for the Hub: log in with `hf auth login`" in line
    line = refused(push(tree, HF_TOKEN="hf_ünusual"))
    assert "the token for the Hub holds characters that no token has" in line


def test_no_hub_at_all(hub, push, tmp_path):
    tree = make_tree(tmp_path / "tree", {"none": NONE})
    assert "HF_HUB_OFFLINE is set" in refused(push(tree, HF_HUB_OFFLINE="1"))
    line = refused(push(tree, HF_ENDPOINT="http://127.0.0.1:9"))
    assert "no lasting connection to http://127.0.0.1:9 ([Errno" in line


def test_a_hub_without_xet_storage(hub, push, tmp_path):
    """hf_xet reports in its own way; the double speaks plain LFS only."""
    line = refused(push(make_tree(tmp_path / "tree", {"none": NONE}), HF_HUB_DISABLE_XET="0"))
    assert "no lasting connection to" in line and "with HF_HUB_DISABLE_XET=1 if this" in line
    assert set(hub.repos[REPO].head.files) == {".gitattributes"}


def test_the_token_is_not_in_debugging_output_either(hub, push, tmp_path):
    done = push(make_tree(tmp_path / "tree", {"none": NONE}), HF_DEBUG="1")
    assert done.returncode == 0 and "Send: curl -X PUT" in done.stderr


# -- what is refused before anything is sent -----------------------------------------------------


def test_a_repository_with_data_in_the_way(hub, push, tmp_path):
    repo = hub.make(REPO)
    card = b"---\nconfigs:\n- config_name: all\n  data_files: none/*.parquet\n---\n"
    for files, text in (
        ({"data/train.csv": b"1"}, "holds data, such as data/train.csv, that its card does not"),
        ({"README.md": card}, "would become a part of config all, which me/persona_items has"),
        ({"README.md": b"---\na: [\n---\n"}, "the card of me/persona_items: its metadata is not"),
        ({"README.md": b"---\nconfigs: 3\n---\n"}, "is not in the Hub's form"),
    ):
        repo.add("x", files, frozenset())
        before = hub.state()
        assert text in refused(push(make_tree(tmp_path / "tree", {"none": NONE})))
        assert hub.state() == before


def damage(tree: Path, how: str) -> None:
    card, data = tree / "README.md", tree / "none" / "train-00000-of-00001.parquet"
    if how == "no card":
        card.unlink()
    elif how == "other":
        card.write_text("---\nlibrary_name: peft\n---\n")
        (tree / "config.json").write_text("{}")
    elif how == "truncated":
        data.write_bytes(data.read_bytes()[:-20])
    elif how == "missing":
        data.unlink()
    elif how == "rows":
        card.write_text(card.read_text().replace("num_examples: 3", "num_examples: 4"))
    elif how == "undescribed":
        card.write_text(card.read_text().replace("dataset_info:\n- config_name: none", "dataset_info:\n- config_name: a"))  # fmt: skip  # noqa: E501
    elif how == "splits":
        about = metadata(card.read_text(), "")
        about["configs"][0]["data_files"] = "none/*"
        card.write_text(f"---\n{yaml.safe_dump(about)}---\n")
    elif how == "root":
        data.rename(tree / "train.parquet")
        card.write_text(card.read_text().replace("none/train-*", "train.parquet"))
    elif how == "licence":
        card.write_text(card.read_text().replace("license: apache-2.0\n", ""))
    elif how == "latin":
        card.write_bytes(card.read_bytes() + b"\xff")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("no card", "README.md: no such file"),
        ("licence", "names no licence, and what is published needs one: build the tree with "),
        ("other", "is no dataset tree: the metadata of its README.md must have `configs`"),
        ("truncated", "train-00000-of-00001.parquet: not a whole Parquet file (Parquet magic"),
        ("missing", "no file for split train of config none (none/train-*)"),
        ("rows", "split train of config none has 3 rows, its card says 4; build the tree again"),
        ("undescribed", "`dataset_info` has no entry for config none"),
        ("splits", "config none must name its `data_files` as a list of split and path"),
        ("root", "train.parquet: the files of config none must be Parquet, in a folder of their"),
        ("latin", "cannot be read as UTF-8 text"),
    ],
)
def test_trees_that_do_not_fit_are_refused(tmp_path, capsys, how, text):
    tree = make_tree(tmp_path / "tree", {"none": NONE})
    damage(tree, how)
    assert main(["publish", str(tree), "--repo_id", REPO]) == 2
    streams = capsys.readouterr()
    assert text in streams.err and streams.err.count("\n") == 1 and streams.out == ""


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (
            ["--repo_id", "persona"],
            "--repo_id persona is no id of a repository on the Hub, OWNER/NAME",
        ),
        (["--repo_id", "a/b/c"], "--repo_id a/b/c is no id"),
        (["--repo_id", REPO, "--message", " "], "--message is empty"),
        (["--repo_id", REPO, "--license", "mit"], "--license and --base_model are for models only"),
        ([], "--repo_id"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, capsys, argv, text):
    tree = make_tree(tmp_path / "tree", {"none": NONE})
    assert main(["publish", str(tree), *argv]) == 2
    assert text in capsys.readouterr().err
    assert main(["publish", str(tmp_path / "nowhere"), "--repo_id", REPO]) == 2
    assert "no such folder" in capsys.readouterr().err


# -- models --------------------------------------------------------------------------------------

MODEL_REPO = "me/llama-dpo"
GIVEN = ("--license", "apache-2.0", "--base_model", "me/llama")
CARD = "---\nbase_model: llama-0\nlibrary_name: peft\n---\n\n# An adapter\n"
# In a reader's process: an adapter's base model and tokenizer come from the Hub as well.
READ_MODEL = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM, PeftConfig
from transformers import AutoTokenizer
name = sys.argv[1]
model, tokenizer = AutoPeftModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
ids = tokenizer("joy sadness anger", return_tensors="pt")["input_ids"]
with torch.no_grad():
    logits = model(input_ids=ids).logits[0, -1]
json.dump([PeftConfig.from_pretrained(name).base_model_name_or_path, logits.tolist()], sys.stdout)
"""  # noqa: E501


@pytest.fixture(scope="module")
def saved(tiny_model_dir, tmp_path_factory) -> Path:
    """A folder like one of the recipe in recipes/dpo, with checkpoints and the merged model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, folder = tiny_model_dir("llama", chat=True), tmp_path_factory.mktemp("saved") / "out"
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    for place in (folder, folder / "checkpoints" / "checkpoint-2"):
        model.save_pretrained(place)  # the configuration names the base model's folder
        tokenizer.save_pretrained(place)
    model.merge_and_unload().save_pretrained(folder / "merged")
    tokenizer.save_pretrained(folder / "merged")
    (folder / "README.md").write_text(CARD)
    (folder / "merged" / "README.md").write_text(CARD.replace("peft", "transformers"))
    (folder / "run.json").write_text(json.dumps({"recipe": {"model": str(base)}}))
    (folder / "curves.json").write_text("[]")
    (folder / ".env").write_text("A=b")
    return folder


@pytest.fixture
def model(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def publish_model(push, folder: Path, *more: str) -> subprocess.CompletedProcess:
    return push(folder, "--repo_id", MODEL_REPO, *GIVEN, *more)


@pytest.mark.slow
def test_an_adapter_and_its_base_are_read_back(
    hub, push, environment, model, tiny_model_dir, tmp_path
):
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    base = Path(shutil.copytree(tiny_model_dir("llama", chat=True), tmp_path / "base"))
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: me/origin\n---\n")
    assert push(base, "--repo_id", "me/llama").returncode == 0
    done = publish_model(push, model, "--message", "First")
    repo = hub.repos[f"models/{MODEL_REPO}"]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Published: {hub.url}/{MODEL_REPO}/commit/{repo.head.oid}\n"
    assert repo.private and [c.message for c in repo.commits] == ["initial commit", "First"]
    files = repo.head.files
    assert set(files) == {
        ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors",
        "chat_template.jinja", "curves.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    changed = {"README.md", "adapter_config.json", ".gitattributes"}
    assert all(files[name] == (model / name).read_bytes() for name in files.keys() - changed)
    assert repo.head.lfs == {"adapter_model.safetensors"}
    assert metadata(files["README.md"].decode(), "") == {
        "base_model": "me/llama", "library_name": "peft", "license": "apache-2.0"
    }  # fmt: skip
    assert files["README.md"].endswith(b"---\n\n# An adapter\n")
    local = json.loads((model / "adapter_config.json").read_text())
    assert json.loads(files["adapter_config.json"]) == local | {
        "base_model_name_or_path": "me/llama"
    }
    assert not any(str(tmp_path.parent).encode() in content for content in files.values())
    assert (model / "README.md").read_text() == CARD  # the local folder is as it was

    reader = environment | {"HF_HOME": str(tmp_path / "reader")}
    reader_run = subprocess.run(
        [sys.executable, "-c", READ_MODEL, MODEL_REPO], capture_output=True, text=True, env=reader
    )
    assert reader_run.returncode == 0, reader_run.stderr
    name, logits = json.loads(reader_run.stdout)
    ids = AutoTokenizer.from_pretrained(model)("joy sadness anger", return_tensors="pt")
    with torch.no_grad():
        ours = AutoPeftModelForCausalLM.from_pretrained(model)(ids["input_ids"]).logits[0, -1]
    assert name == "me/llama" and logits == pytest.approx(ours.tolist(), abs=1e-5)


def test_a_second_push_adds_and_removes(hub, push, model):
    assert publish_model(push, model).returncode == 0
    before = hub.state()
    assert publish_model(push, model).returncode == 0 and hub.state() == before
    repo = hub.repos[f"models/{MODEL_REPO}"]
    theirs = {".eval_results/unswayed.yaml": b"[]", "NOTES.md": b"hi", "adapter.gguf": b"1"}
    card = repo.head.files["README.md"].replace(b"---\n", b"---\nextra_gated_prompt: Agree?\n", 1)
    repo.add("theirs", repo.head.files | theirs | {"README.md": card}, repo.head.lfs)
    (model / "curves.json").unlink()
    (model / "curves.svg").write_text("<svg/>")
    assert publish_model(push, model).returncode == 0
    files, old = repo.head.files, before[f"models/{MODEL_REPO}"][2]
    assert set(files) == set(old) - {"curves.json"} | {"curves.svg"} | set(theirs)
    assert metadata(files["README.md"].decode(), "")["extra_gated_prompt"] == "Agree?"
    assert len(repo.commits) == 4


def test_a_whole_model_in_fewer_shards(hub, push, model):
    from safetensors.numpy import load_file, save_file

    merged = model / "merged"
    whole = merged / "model.safetensors"
    tensors = load_file(whole)
    names, half = sorted(tensors), len(tensors) // 2
    weight_map = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, merged / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    index = merged / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    whole.rename(model / "kept")
    assert publish_model(push, merged).returncode == 0
    files = hub.repos[f"models/{MODEL_REPO}"].head.files
    assert index.name in files and whole.name not in files
    for shard in {*weight_map.values(), index.name}:
        (merged / shard).unlink()
    (model / "kept").rename(whole)
    assert publish_model(push, merged).returncode == 0
    files = hub.repos[f"models/{MODEL_REPO}"].head.files
    assert [name for name in files if "safetensors" in name] == ["model.safetensors"]
    line = refused(publish_model(push, model))
    assert f"{MODEL_REPO} holds a whole model (config.json), and this is an adapter" in line
    assert hub.repos[f"models/{MODEL_REPO}"].head.files == files


def test_a_failed_model_push_leaves_all_as_it_was(hub, push, model):
    assert publish_model(push, model, "--public").returncode == 0
    assert not hub.repos[f"models/{MODEL_REPO}"].private
    before = hub.state()
    (model / "curves.json").write_text("[1]")
    hub.behave = lambda request: (503, {"error": "down"}) if "/commit/" in request else None
    line = refused(publish_model(push, model))
    assert "503 (down)" in line and "run the same command again" in line and hub.state() == before
    lost = [1]
    hub.behave = lambda request: LOST if "/commit/" in request and lost and lost.pop() else None
    done = publish_model(push, model)
    assert done.returncode == 0 and f"{MODEL_REPO} is public, and stays so" in done.stderr
    assert len(hub.repos[f"models/{MODEL_REPO}"].commits) == 3


def damage_model(folder: Path, how: str) -> Path:
    """The folder to publish."""
    card, weights = folder / "README.md", folder / "adapter_model.safetensors"
    config = folder / "tokenizer_config.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-8])
    elif how == "pickled":
        weights.rename(folder / "adapter_model.bin")
    elif how == "path":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"cache": str(folder)}))
    elif how == "broken":
        config.write_text("{")
    elif how == "no card":
        card.unlink()
    elif how == "memory":
        (folder / "manifest.json").write_text("{}")
        shutil.copytree(folder / "checkpoints" / "checkpoint-2", folder / "adapter-00002")
    elif how == "within":
        damage_model(folder, "memory")
        return folder / "adapter-00002"
    elif how == "from memory":
        card.write_text(CARD.replace("---\n", "---\nunswayed:\n  private_memory: true\n", 1))
    elif how == "shard":
        (folder / "merged" / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
        )
        return folder / "merged"
    return folder


@pytest.mark.parametrize(
    ("how", "options", "text"),
    [
        ("", GIVEN[2:], "names no licence, and what is published needs one: look up that of the"),
        ("", GIVEN[:2], "base_model 'llama-0' is no model on the Hub: say with --base_model OWNER"),
        ("", (*GIVEN[:2], "--base_model", "/models/llama"), "is no model on the Hub"),
        ("truncated", GIVEN, "adapter_model.safetensors: not a whole safetensors file"),
        ("pickled", GIVEN, "adapter_model.safetensors: no such file"),
        ("shard", GIVEN, "model-00001-of-00002.safetensors: no such file"),
        ("path", GIVEN, "tokenizer_config.json: cache is a path of this machine"),
        ("broken", GIVEN, "tokenizer_config.json: not JSON"),
        ("no card", GIVEN, "README.md: no such file"),
        ("memory", GIVEN, "is a user's memory, which is private: it is not published"),
        ("within", GIVEN, "is a user's memory, which is private: it is not published"),
        ("from memory", GIVEN, "was trained on from a user's memory, which is private"),
    ],
)
def test_models_that_do_not_fit_are_refused(model, capsys, how, options, text):
    folder = damage_model(model, how)
    assert main(["publish", str(folder), "--repo_id", MODEL_REPO, *options]) == 2
    streams = capsys.readouterr()
    assert text in streams.err and streams.err.count("\n") == 1 and streams.out == ""


# -- cards and globs -----------------------------------------------------------------------------


def test_cards_are_merged(tmp_path):
    tree = make_tree(tmp_path / "tree", {"none": NONE})
    card = read_folder(tree).card
    assert merged_card(card, {}) == card
    remote = metadata(card, "") | {
        "license": "mit",
        "extra_gated_prompt": "Agree?",
        "configs": [{"config_name": "default", "data_files": "data/*", "default": True}],
        "dataset_info": {"features": [], "splits": [{"name": "train", "num_examples": 1}]},
    }
    merged = merged_card(card, remote)
    about = metadata(merged, "")
    assert [c["config_name"] for c in about["configs"]] == ["none", "default"]
    assert [c["config_name"] for c in about["dataset_info"]] == ["none", "default"]
    assert (about["license"], about["extra_gated_prompt"]) == ("apache-2.0", "Agree?")
    assert about["configs"][1]["default"] is True and merged.endswith("---\n\n# Items\n")
    assert merged_card(card, about) == merged
    own_default = card.replace(
        "- config_name: none\n  data", "- config_name: none\n  default: true\n  data"
    )
    assert own_default != card
    assert "default" not in metadata(merged_card(own_default, remote), "")["configs"][1]


@pytest.mark.parametrize(
    ("config", "globs"),
    [
        ({"data_files": "a/*"}, ["a/*"]),
        ({"data_files": ["a/*", "./b.parquet"]}, ["a/*", "b.parquet"]),
        ({"data_files": [{"split": "train", "path": ["x", "y"]}]}, ["x", "y"]),
        ({"data_dir": "d", "data_files": [{"split": "train", "path": "x"}]}, ["d/x"]),
        ({"data_dir": "d"}, ["d/**"]),
        ({}, []),
    ],
)
def test_patterns_of_a_config(config, globs):
    assert patterns(config) == globs


def test_globs_stay_within_folders():
    files = ["a/x.parquet", "a/b/x.parquet", "x.parquet"]
    assert matching(["a/*"], files) == ["a/x.parquet"]
    assert matching(["a/**"], files) == files[:2]
    assert matching(["*.parquet"], files) == ["x.parquet"]
    with pytest.raises(InputError, match="is not in the Hub's form"):
        metadata("---\nconfigs:\n- config_name: 3\n---\n", "here")
