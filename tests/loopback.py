"""A double of the Hub on loopback: dataset and model repositories in memory, over HTTP.

It speaks what huggingface_hub 2.4 and datasets 5.2 use: create, information and tree of a
repository, files by revision, preupload, plain LFS (batch, PUT, verify) and the commit in NDJSON.
It knows no Xet: clients need HF_HUB_DISABLE_XET=1. As on the Hub, Parquet and safetensors go
through LFS, and so does any file above 10 MB. `Hub.behave` lets a test break any request.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_FROM = 10 * 1024**2  # bytes
LFS = (".parquet", ".safetensors")
CUT = "cut"  # what `behave` returns for: close the connection in the middle of the request
LOST = "lost"  # do what is asked, and close the connection without a reply
Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclasses.dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]
    lfs: frozenset[str]  # paths kept as LFS


@dataclasses.dataclass
class Repo:
    private: bool
    commits: list[Commit]

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def add(self, message: str, files: dict[str, bytes], lfs: frozenset[str]) -> Commit:
        parent = self.commits[-1].oid if self.commits else ""
        content = "".join(f"{p}:{hashlib.sha1(c).hexdigest()}\n" for p, c in sorted(files.items()))
        oid = hashlib.sha1(f"{parent}\n{message}\n{content}".encode()).hexdigest()
        self.commits.append(Commit(oid, message, files, lfs))
        return self.head


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repos: by OWNER/NAME, models by models/OWNER/NAME.
        objects: what LFS holds, by sha256; `verified` are those that a client has verified.
        requests: every request, as "METHOD path", in order.
        behave: `behave(request)` is called for each; None lets it pass, CUT, LOST or a reply
            (status, content[, headers]) stops it.
    """

    daemon_threads = True

    def __init__(self, token: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token, self.lock = token, threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.verified: set[str] = set()
        self.requests: list[str] = []
        self.behave: Callable[[str], Any] = lambda request: None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that has given up is no news."""

    def make(self, repo_id: str, private: bool = False) -> Repo:
        repo = self.repos[repo_id] = Repo(private, [])
        repo.add("initial commit", {".gitattributes": b"*.parquet filter=lfs\n"}, frozenset())
        return repo

    def state(self) -> dict[str, tuple]:
        """All that a reader can see."""
        return {k: (r.private, r.head.oid, dict(r.head.files)) for k, r in self.repos.items()}

    # -- replies ---------------------------------------------------------------------------------

    def reply(self, method: str, path: str, query: dict, body: bytes, user: bool) -> Reply:
        for pattern, verbs, answer in ROUTES:
            match = re.fullmatch(pattern, as_dataset(path))
            if match and method in verbs:
                with self.lock:
                    return answer(self, *match.groups(), query=query, body=body, user=user)
        return 404, {"error": f"no such route: {method} {path}"}

    def readable(self, repo_id: str, user: bool) -> Repo | None:
        repo = self.repos.get(repo_id)
        return repo if repo is not None and (user or not repo.private) else None

    def create(self, *, query, body, user) -> Reply:
        if not user:
            return 401, {"error": "Invalid username or password."}
        content = json.loads(body)
        kind = {"dataset": "", "space": "spaces/"}.get(content.get("type"), "models/")
        repo_id = f"{kind}{content['organization']}/{content['name']}"
        url = {"url": self.address(repo_id)}
        if repo_id in self.repos:
            return 409, url | {"error": "You already created this repo"}
        self.make(repo_id, content.get("visibility") == "private")
        return 200, url

    def address(self, repo_id: str) -> str:
        model = repo_id.removeprefix("models/")
        if repo_id.startswith("spaces/"):
            return f"{self.url}/{repo_id}"
        return f"{self.url}/{model if model != repo_id else f'datasets/{repo_id}'}"

    def info(self, repo_id, revision=None, *, query, body, user) -> Reply:
        commit = self.commit_of(repo_id, revision, user)
        if isinstance(commit, tuple):
            return commit
        return 200, {
            "_id": "0", "id": repo_id.removeprefix("models/"), "sha": commit.oid, "tags": [],
            "downloads": 0, "likes": 0,
            "private": self.repos[repo_id].private, "gated": False, "disabled": False,
            "siblings": [
                {"rfilename": path, "size": len(commit.files[path])}
                for path in sorted(commit.files)
            ],
        }  # fmt: skip

    def commit_of(self, repo_id: str, revision: str | None, user: bool) -> Commit | Reply:
        repo = self.readable(repo_id, user)
        if repo is None:
            return 404 if user else 401, {"error": "Not found"}, {"X-Error-Code": "RepoNotFound"}
        if revision in (None, "main"):
            return repo.head
        for commit in repo.commits:
            if commit.oid == revision:
                return commit
        return 404, {"error": "No such revision"}, {"X-Error-Code": "RevisionNotFound"}

    def tree(self, repo_id, revision, folder=None, *, query, body, user) -> Reply:
        commit = self.commit_of(repo_id, revision, user)
        if isinstance(commit, tuple):
            return commit
        start = f"{unquote(folder)}/" if folder else ""
        inside = [path for path in commit.files if path.startswith(start)]
        if start and not inside:
            return 404, {"error": "No such folder"}, {"X-Error-Code": "EntryNotFound"}
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        entries = {}
        for path in sorted(inside):
            parts = path[len(start) :].split("/")
            for i in range(1, len(parts)):
                name = start + "/".join(parts[:i])
                if recursive or i == 1:
                    entries[name] = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == 1:
                entries[path] = self.entry(commit, path)
        return 200, list(entries.values())

    def entry(self, commit: Commit, path: str) -> dict[str, Any]:
        content = commit.files[path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
        if path in commit.lfs:
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
        return entry

    def paths_info(self, repo_id, revision, *, query, body, user) -> Reply:
        commit = self.commit_of(repo_id, revision, user)
        if isinstance(commit, tuple):
            return commit
        try:
            paths = json.loads(body)["paths"]
        except ValueError:
            paths = parse_qs(body.decode())["paths"]
        entries = []
        for path in paths if isinstance(paths, list) else [paths]:
            if path in commit.files:
                entries.append(self.entry(commit, path))
            elif any(p.startswith(f"{path}/") for p in commit.files):
                entries.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        return 200, entries

    def resolve(self, repo_id, revision, path, *, query, body, user) -> Reply:
        commit = self.commit_of(repo_id, revision, user)
        if isinstance(commit, tuple):
            return commit
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            headers |= {"X-Error-Code": "EntryNotFound"}
            return 404, {"error": "Entry not found"}, headers
        content = commit.files[path]
        digest = hashlib.sha256(content).hexdigest() if path in commit.lfs else git_oid(content)
        return 200, content, headers | {"ETag": f'"{digest}"'}

    def preupload(self, repo_id, revision, *, query, body, user) -> Reply:
        commit = self.commit_of(repo_id, revision, user)
        if isinstance(commit, tuple):
            return commit
        files = []
        for file in json.loads(body)["files"]:
            path, old = file["path"], commit.files.get(file["path"])
            lfs = path.endswith(LFS) or file["size"] > LFS_FROM
            oid = None
            if old is not None:
                oid = hashlib.sha256(old).hexdigest() if path in commit.lfs else git_oid(old)
            mode = "lfs" if lfs else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": files}

    def batch(self, repo_id, *, query, body, user) -> Reply:
        if not user:
            return 401, {"error": "Invalid credentials in Authorization header"}
        objects = []
        for pointer in json.loads(body)["objects"]:
            entry = {"oid": pointer["oid"], "size": pointer["size"]}
            if pointer["oid"] not in self.verified:
                where = f"{self.url}/lfs/{pointer['oid']}"
                entry["actions"] = {
                    "upload": {"href": f"{where}?X-Amz-Signature=signed-secret"},
                    "verify": {"href": f"{where}/verify"},
                }
            objects.append(entry)
        return 200, {"transfer": "basic", "objects": objects}

    def upload(self, oid, *, query, body, user) -> Reply:
        if query.get("X-Amz-Signature") != ["signed-secret"]:
            return 403, {"error": "not signed"}
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "not the content that was announced"}
        self.objects[oid] = body
        return 200, {}

    def verify(self, oid, *, query, body, user) -> Reply:
        content = json.loads(body)
        if content["oid"] != oid or len(self.objects.get(oid, b"")) != content["size"]:
            return 404, {"error": "no such object"}
        self.verified.add(oid)
        return 200, {}

    def commit(self, repo_id, revision, *, query, body, user) -> Reply:
        if not user:
            return 401, {"error": "Invalid credentials in Authorization header"}
        repo = self.repos[repo_id]
        lines = [json.loads(line) for line in body.splitlines()]
        header, *operations = lines
        if header["value"].get("parentCommit", repo.head.oid) != repo.head.oid:
            return 412, {"error": "A commit has happened since. Please refresh and try again."}
        files, lfs = dict(repo.head.files), set(repo.head.lfs)
        for operation in operations:
            key, value = operation["key"], operation["value"]
            path = value["path"]
            if key == "file":
                files[path] = base64.b64decode(value["content"])
                lfs.discard(path)
            elif key == "lfsFile":
                if value["oid"] not in self.verified:
                    return 400, {"error": f"LFS object of {path} is missing"}
                files[path] = self.objects[value["oid"]]
                lfs.add(path)
            elif key == "deletedFile":
                if files.pop(path, None) is None:
                    return 404, {"error": "A file with this name doesn't exist"}
                lfs.discard(path)
            else:
                return 400, {"error": f"{key} is not known"}
        made = repo.add(header["value"]["summary"], files, frozenset(lfs))
        url = f"{self.address(repo_id)}/commit/{made.oid}"
        return 200, {"success": True, "commitUrl": url, "commitOid": made.oid}

    def validate_yaml(self, *, query, body, user) -> Reply:
        return 200, {"errors": [], "warnings": []}

    def whoami(self, *, query, body, user) -> Reply:
        return (200, {"name": "me"}) if user else (401, {"error": "Invalid credentials"})


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def as_dataset(path: str) -> str:
    """The path of a model as that of a dataset models/OWNER/NAME; others as they are."""
    path = re.sub(r"^/api/(models|spaces)/", r"/api/datasets/\1/", path)
    if path.startswith("/spaces/"):
        return "/datasets" + path
    return re.sub(r"^/([^/]+/[^/]+(?:/resolve/|\.git/))", r"/datasets/models/\1", path)


ID = r"((?:models/|spaces/)?[^/]+/[^/]+)"
ROUTES = [
    (r"/api/whoami-v2", "GET", Hub.whoami),
    (r"/api/validate-yaml", "POST", Hub.validate_yaml),
    (r"/api/repos/create", "POST", Hub.create),
    (rf"/api/datasets/{ID}", "GET", Hub.info),
    (rf"/api/datasets/{ID}/revision/([^/]+)", "GET", Hub.info),
    (rf"/api/datasets/{ID}/tree/([^/]+)(?:/(.+))?", "GET", Hub.tree),
    (rf"/api/datasets/{ID}/paths-info/([^/]+)", "POST", Hub.paths_info),
    (rf"/api/datasets/{ID}/preupload/([^/]+)", "POST", Hub.preupload),
    (rf"/api/datasets/{ID}/commit/([^/]+)", "POST", Hub.commit),
    (rf"/datasets/{ID}\.git/info/lfs/objects/batch", "POST", Hub.batch),
    (rf"/datasets/{ID}/resolve/([^/]+)/(.+)", ("GET", "HEAD"), Hub.resolve),
    (r"/lfs/([0-9a-f]{64})", "PUT", Hub.upload),
    (r"/lfs/([0-9a-f]{64})/verify", "POST", Hub.verify),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def handle_any(self) -> None:
        hub, url = self.server, urlsplit(self.path)
        path = unquote(url.path)
        request = f"{self.command} {path}"
        with hub.lock:
            hub.requests.append(request)
            planned = hub.behave(request)
        if planned == CUT:
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            self.close_connection = True
            return
        body = self._body()
        authorization = self.headers.get("Authorization")
        if planned not in (None, LOST):
            reply = planned
        elif authorization is not None and authorization != f"Bearer {hub.token}":
            words = "Invalid credentials in Authorization header"
            reply = 401, {"error": words}, {"X-Error-Message": words}
        else:
            user = hub.token is None or authorization is not None
            reply = hub.reply(self.command, path, parse_qs(url.query), body, user)
        if planned == LOST:
            self.close_connection = True
        else:
            self._send(*reply)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span and status == 200:
            start, end = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
            headers = (headers or {}) | {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            status, data = 206, data[start : end + 1]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args) -> None:
        pass


def main() -> None:
    """Serve until Ctrl-C: `python tests/loopback.py`, to try a push without the Hub."""
    with Hub(token="hf_loopback") as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}
        print("export", *(f"{name}={value}" for name, value in settings.items()), flush=True)
        hub.serve_forever()


if __name__ == "__main__":
    main()
