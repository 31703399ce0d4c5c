"""Publishing to a double of the Hub on loopback, and reading back with `load_dataset` over HTTP.

Every push and every reading is a process of its own, as HF_ENDPOINT is read at import.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from unswayed.errors import InputError
from unswayed.hub.push import matching, merged_card, metadata, patterns, read_tree
from unswayed.hub.trees import Tree, write_tree

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
found = {}
for config in get_dataset_config_names(name):
    splits = load_dataset(name, config)
    found[config] = {split: rows.to_list() for split, rows in splits.items()}
    for split, rows in splits.items():
        assert rows.features == splits[next(iter(splits))].features
json.dump(found, sys.stdout)
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
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return kept | {
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
from unswayed.hub.cards import question_source
from unswayed.mitigation.questions import load_questions
spec = sys.argv[1]
print([question.question for question in load_questions([spec])], question_source(spec).words)
"""


def test_questions_are_read_by_config_and_revision(hub, push, environment, tmp_path):
    def publish(word: str) -> str:
        rows = [{"question": f"{word} {i}?", "answer": str(i)} for i in range(2)]
        other = [{"question": "Other?", "answer": "x"}]
        tables = {
            config: {"train": Dataset.from_list(found)}
            for config, found in (("main", rows), ("other", other))
        }
        tree = Tree("asked", tables, {"license": "apache-2.0"}, {}, "Questions.")
        assert push(write_tree(tree, tmp_path / "tree")).returncode == 0
        return hub.repos[REPO].head.oid

    old, new = publish("Old"), publish("New")
    for revision, word, found in (("", "New", new), (f"@{old}", "Old", old)):
        done = subprocess.run(
            [sys.executable, "-c", QUESTIONS, f"mine=hub:{REPO}:main{revision}"],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"['{word} 0?', '{word} 1?']" in done.stdout and f"`{found}`" in done.stdout


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
    hub.asked.clear()
    done = push(tree)
    assert (done.returncode, done.stdout, hub.state()) == (0, first, before)
    assert done.stderr.startswith("No files have been modified") and done.stderr.count("\n") == 1
    assert not any("PUT" in asked or "/commit/" in asked for asked in hub.asked)


def test_another_config_stays(hub, push, read_back, tmp_path):
    assert push(make_tree(tmp_path / "a", {"grid": GRID})).returncode == 0
    kept = dict(hub.repos[REPO].head.files)
    tree = make_tree(tmp_path / "b", {"none": NONE}, "# New text\n")
    assert push(tree).returncode == 0
    files = hub.repos[REPO].head.files
    assert all(files[path] == kept[path] for path in kept if path.startswith("grid/"))
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
    hub.behave = lambda asked: CUT if asked.startswith("PUT") and cuts.pop() else None
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
    hub.behave = lambda asked: trouble if where in asked else None
    tree = make_tree(tmp_path / "b", {"grid": {"train": NONE["train"]}, "none": NONE})
    line = refused(push(tree))
    assert ("no lasting connection to" in line) == (trouble == CUT)
    assert "run the same command again" in line and hub.state() == before
    hub.behave = lambda asked: None
    assert push(tree).returncode == 0
    head = hub.repos[REPO].head
    assert len(head.files) == 4 and len(hub.repos[REPO].commits) == 3
    assert head.files["README.md"] == (tree / "README.md").read_bytes()


def test_what_is_uploaded_is_not_sent_again(hub, push, tmp_path):
    tree = make_tree(tmp_path / "tree", {"grid": GRID, "none": NONE})
    hub.behave = lambda asked: (503, {}) if "/commit/" in asked else None
    refused(push(tree))
    assert set(hub.repos[REPO].head.files) == {".gitattributes"}
    hub.behave = lambda asked: None
    hub.asked.clear()
    assert push(tree).returncode == 0
    assert not any("PUT" in asked for asked in hub.asked)


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

    def meanwhile(asked: str) -> None:
        if "/commit/" in asked and others:
            others.pop()
            repo.add("theirs", theirs | {"NOTES.md": b"hi"}, repo.head.lfs)

    hub.behave = meanwhile
    done = push(make_tree(tmp_path / "b", {"none": NONE}))
    assert done.returncode == 0 and "answers 412" in done.stderr
    assert repo.head.files["NOTES.md"] == b"hi" and len(repo.commits) == 5
    assert read_back() == {"none": NONE, "grid": GRID}


def test_a_lost_reply_does_not_commit_twice(hub, push, tmp_path):
    lost = [1]
    hub.behave = lambda asked: LOST if "/commit/" in asked and lost and lost.pop() else None
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
    hub.behave = lambda asked: reply if where in asked else None
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
    elif how == "model":
        card.write_text("---\nlibrary_name: peft\n---\n")
        (tree / "adapter_config.json").write_text("{}")
    elif how == "truncated":
        data.write_bytes(data.read_bytes()[:-20])
    elif how == "missing":
        data.unlink()
    elif how == "rows":
        card.write_text(card.read_text().replace("num_examples: 3", "num_examples: 4"))
    elif how == "undescribed":
        card.write_text(card.read_text().replace("dataset_info:\n- config_name: none", "dataset_info:\n- config_name: a"))  # fmt: skip  # noqa: E501
    elif how == "splits":
        found = metadata(card.read_text(), "")
        found["configs"][0]["data_files"] = "none/*"
        card.write_text(f"---\n{yaml.safe_dump(found)}---\n")
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
        ("model", "is no dataset tree: the metadata of its README.md must have `configs`"),
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
    said = capsys.readouterr()
    assert text in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (
            ["--repo_id", "persona"],
            "--repo_id persona is no id of a dataset on the Hub, OWNER/NAME",
        ),
        (["--repo_id", "a/b/c"], "--repo_id a/b/c is no id"),
        (["--repo_id", REPO, "--message", " "], "--message is empty"),
        ([], "--repo_id"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, capsys, argv, text):
    tree = make_tree(tmp_path / "tree", {"none": NONE})
    assert main(["publish", str(tree), *argv]) == 2
    assert text in capsys.readouterr().err
    assert main(["publish", str(tmp_path / "nowhere"), "--repo_id", REPO]) == 2
    assert "no such folder" in capsys.readouterr().err


# -- cards and globs -----------------------------------------------------------------------------


def test_cards_are_merged(tmp_path):
    tree = make_tree(tmp_path / "tree", {"none": NONE})
    card = read_tree(tree).card
    assert merged_card(card, {}) == card
    remote = metadata(card, "") | {
        "license": "mit",
        "extra_gated_prompt": "Agree?",
        "configs": [{"config_name": "default", "data_files": "data/*", "default": True}],
        "dataset_info": {"features": [], "splits": [{"name": "train", "num_examples": 1}]},
    }
    merged = merged_card(card, remote)
    found = metadata(merged, "")
    assert [c["config_name"] for c in found["configs"]] == ["none", "default"]
    assert [c["config_name"] for c in found["dataset_info"]] == ["none", "default"]
    assert (found["license"], found["extra_gated_prompt"]) == ("apache-2.0", "Agree?")
    assert found["configs"][1]["default"] is True and merged.endswith("---\n\n# Items\n")
    assert merged_card(card, found) == merged
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
