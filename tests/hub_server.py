"""A small Hub on this machine: as much of its protocol as pushing and pulling models and Spaces takes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils.sha import git_hash

TOKEN = "hf_writer"
LFS_SUFFIXES = (".safetensors", ".png", ".jpg")


@dataclass
class Repo:
    """One repository: its commits (sha -> path -> content) and where its branches stand."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha


class HubServer(ThreadingHTTPServer):
    """The Hub's state.

    Attributes:
        repos: (type, "owner/name") -> repository.
        lfs: sha256 -> content that was uploaded, committed or not.
        faults: Each is (method, part of the path, what): a status that is answered, or "cut" to close the
            connection halfway through the body.
        log: "METHOD path" of every request, and its range.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.faults: list[tuple[str, str, int | str]] = []
        self.log: list[str] = []

    def fault(self, method: str, path: str) -> int | str | None:
        return next((what for verb, part, what in self.faults if verb == method and part in path), None)

    def files(self, repo: str, branch: str = "main", kind: str = "model") -> dict[str, bytes]:
        """What a branch holds: path -> content."""
        return self.repos[kind, repo].commits[self.repos[kind, repo].branches[branch]]


@contextmanager
def running_hub() -> Iterator[HubServer]:
    with HubServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield server
        finally:
            server.shutdown()


class RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        self.cut = (fault := self.server.fault(self.command, path)) == "cut"
        size = int(self.headers.get("Content-Length", 0))
        if self.cut and size:  # an upload that breaks off
            self.close_connection = bool(self.rfile.read(size // 2))
            return
        body = self.rfile.read(size)
        try:
            if isinstance(fault, int):
                raise RefusedError(fault)
            for pattern, methods, handler in ROUTES:
                if (match := re.fullmatch(pattern, path)) and self.command in methods:
                    return handler(self, body, **match.groupdict())
            raise RefusedError(404)
        except RefusedError as refused:
            self.answer(b"", refused.status, refused.headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def answer(self, body: bytes | dict | list, status: int = 200, headers: dict[str, str] | None = None):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.cut else body)
            self.close_connection |= self.cut

    def check_writer(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise RefusedError(401, "", "Invalid credentials in Authorization header")

    def repo(self, kind: str | None, repo: str) -> Repo:
        found = self.server.repos.get(((kind or "models").rstrip("s/"), repo))
        if found is None or (found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            raise RefusedError(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
        return found

    def revision(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise RefusedError(404, "RevisionNotFound")
        return sha

    def create(self, body: bytes) -> None:
        self.check_writer()
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        key = (asked.get("type", "model"), name)
        url = {"url": f"{self.server.url}/{'spaces/' if key[0] == 'space' else ''}{name}"}
        if key in self.server.repos:
            return self.answer(url, 409)
        repo = self.server.repos[key] = Repo(private=asked.get("visibility") == "private")
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer(url)

    def branch(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self.check_writer()
        found = self.repo(kind, repo)
        if revision in found.branches:
            raise RefusedError(409)
        found.branches[revision] = found.branches["main"]
        self.answer({})

    def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self.check_writer()
        found = self.repo(kind, repo)
        there = found.commits[self.revision(found, revision)]
        files = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            oid = content_id(path, there[path]) if path in there else None
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer({"files": files})

    def lfs_batch(self, body: bytes, kind: str | None, repo: str) -> None:
        self.check_writer()
        objects = []
        for item in json.loads(body)["objects"]:
            upload = {"href": f"{self.server.url}/lfs/{item['oid']}"}
            objects.append(item if item["oid"] in self.server.lfs else item | {"actions": {"upload": upload}})
        self.answer({"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/json"})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if sha256(body) != oid:
            raise RefusedError(400)
        self.server.lfs[oid] = body
        self.answer(b"")

    def commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        self.check_writer()
        found = self.repo(kind, repo)
        files = dict(found.commits[self.revision(found, revision)])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.lfs:
                    raise RefusedError(400)
                files[value["path"]] = self.server.lfs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = found.commit(revision, files)
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha})

    def info(self, body: bytes, kind: str, repo: str, revision: str | None = None) -> None:
        found = self.repo(kind, repo)
        sha = self.revision(found, revision or "main")
        self.answer({"id": repo, "sha": sha, "private": found.private, "tags": [], "siblings": []})

    def tree(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        found = self.repo(kind, repo)
        rows = []
        for path, content in found.commits[self.revision(found, revision)].items():
            row = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if path.endswith(LFS_SUFFIXES):
                row["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            rows.append(row)
        self.answer(rows)

    def resolve(self, body: bytes, kind: str | None, repo: str, revision: str, path: str) -> None:
        found = self.repo(kind, repo)
        sha = self.revision(found, revision)
        if path not in found.commits[sha]:
            raise RefusedError(404, "EntryNotFound")
        content = found.commits[sha][path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{content_id(path, content)}"', "Accept-Ranges": "bytes"}
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return self.answer(content[start : end + 1], 206, headers)
        self.answer(content, headers=headers)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def content_id(path: str, content: bytes) -> str:
    return sha256(content) if path.endswith(LFS_SUFFIXES) else git_hash(content)


API = r"/api/(?P<kind>models|spaces|datasets)/(?P<repo>[^/]+/[^/]+)"
GIT = r"/(?P<kind>(?:spaces|datasets)/)?(?P<repo>[^/]+/[^/]+)"
ROUTES = (
    (r"/api/repos/create", ("POST",), Handler.create),
    (r"/api/validate-yaml", ("POST",), lambda self, _: self.answer({"errors": [], "warnings": []})),
    (API, ("GET",), Handler.info),
    (API + r"/revision/(?P<revision>[^/]+)", ("GET",), Handler.info),
    (API + r"/tree/(?P<revision>[^/]+)(?:/.*)?", ("GET",), Handler.tree),
    (API + r"/branch/(?P<revision>[^/]+)", ("POST",), Handler.branch),
    (API + r"/preupload/(?P<revision>[^/]+)", ("POST",), Handler.preupload),
    (API + r"/commit/(?P<revision>[^/]+)", ("POST",), Handler.commit),
    (GIT + r"\.git/info/lfs/objects/batch", ("POST",), Handler.lfs_batch),
    (r"/lfs/(?P<oid>\w+)", ("PUT",), Handler.lfs_put),
    (GIT + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", ("GET", "HEAD"), Handler.resolve),
)
