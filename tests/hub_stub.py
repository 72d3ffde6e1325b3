"""A small stand-in for the Hugging Face Hub on loopback: what the client calls to create, upload and download.

Written from what huggingface_hub sends and expects: whoami-v2, repos/create, branches, validate-yaml, preupload, the
Git LFS batch protocol (single and multipart uploads), commits as NDJSON, tree and model info, resolve with redirects of
large files to another host, ranges, and the Hub's ways to say no. `faults` cuts connections in the middle.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

OWNER, OWNER_TOKEN, STRANGER_TOKEN = "user", "hf_owner", "hf_stranger"
_USERS = {OWNER_TOKEN: OWNER, STRANGER_TOKEN: "stranger"}


@dataclass
class Repo:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)  # name to commit
    commits: dict[str, dict[str, bytes | str]] = field(default_factory=dict)  # path to bytes, or a large file's oid

    def commit(self, branch: str, files: dict[str, bytes | str]) -> str:
        sha = hashlib.sha1(f"{branch}{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class HubStub:
    """Use as a context manager; `url` is what HF_ENDPOINT should be.

    `requests` counts what arrived, as "METHOD route". Of the connections to storage of a kind ("upload", "download")
    the next `spared[kind]` work, and the `faults[kind]` after these break after half of the bytes.
    """

    def __init__(self, part_bytes: int = 1 << 20) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}  # large files by SHA-256
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_bytes = part_bytes  # larger files are uploaded in parts of this size
        self.requests: Counter[str] = Counter()
        self.ranges: list[int] = []  # where resumed downloads began
        self.spared: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __enter__(self) -> HubStub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url, self.storage = f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Contents of a revision by path."""
        tree = self.repos[repo].commits[self.repos[repo].branches[revision]]
        return {path: self.objects[value] if isinstance(value, str) else value for path, value in tree.items()}

    def fails(self, kind: str) -> bool:
        with self.lock:
            if self.spared[kind] > 0:
                self.spared[kind] -= 1
                return False
            self.faults[kind] -= 1
            return self.faults[kind] >= 0


class _No(Exception):
    """An answer that is a refusal: status, message, the Hub's error code."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self) -> None:
        path = urlsplit(self.path).path
        try:
            for method, pattern, action in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    self.hub.requests[f"{self.command} {action}"] += 1
                    getattr(self, f"_{action}")(*map(unquote, match.groups()))
                    return
            raise _No(404, f"no such page: {self.command} {path}")
        except _No as no:
            # The request's body may not have been read, so the connection ends here, and the client must know.
            headers = {"Connection": "close", "X-Error-Message": no.message}
            headers |= {"X-Error-Code": no.code} if no.code else {}
            self._json({"error": no.message}, no.status, headers)

    # -- answers and requests ----------------------------------------------------------------------------------------

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _user(self) -> str | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        user = _USERS.get(header.removeprefix("Bearer "))
        if user is None:
            raise _No(401, "Invalid credentials in Authorization header")
        return user

    def _repo(self, name: str, write: bool = False) -> Repo:
        user, repo = self._user(), self.hub.repos.get(name)
        hidden = repo is None or (repo.private and user != OWNER)
        if hidden and user is None:  # the Hub does not tell strangers what there is
            raise _No(401, "Invalid username or password.")
        if hidden:
            raise _No(404, "Repository not found", "RepoNotFound")
        if write and user != OWNER:
            raise _No(403, "You don't have the required permissions to perform this action")
        return repo

    def _commit(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise _No(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    # -- the API -----------------------------------------------------------------------------------------------------

    def _whoami(self) -> None:
        user = self._user()
        if user is None:
            raise _No(401, "Invalid username or password.")
        self._json({"type": "user", "name": user, "auth": {"accessToken": {"role": "write"}}})

    def _create(self) -> None:
        request, user = json.loads(self._body()), self._user()
        if user is None:
            raise _No(401, "Invalid username or password.")
        if request["organization"] not in (None, user):
            raise _No(
                403, f'You don\'t have the rights to create a model under the namespace "{request["organization"]}"'
            )
        name = f"{user}/{request['name']}"
        if name in self.hub.repos:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
            return
        repo = Repo(request.get("visibility") == "private" or bool(request.get("private")))
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.hub.repos[name] = repo
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _validate_yaml(self) -> None:
        parts = json.loads(self._body())["content"].split("---\n")
        data, problems = yaml.safe_load(parts[1]) if len(parts) > 2 else None, []
        for result in (result for model in (data or {}).get("model-index", []) for result in model["results"]):
            problems += [f"{k} without {n}" for k, n in _CARD_FIELDS if n not in result[k]]
            problems += [
                "a metric without type or value" for m in result["metrics"] if not {"type", "value"} <= m.keys()
            ]
        warnings = [] if data else [{"message": "empty or missing yaml metadata in repo card"}]
        self._json({"warnings": warnings, "errors": [{"message": p} for p in problems]}, 400 if problems else 200)

    def _branch(self, name: str, branch: str) -> None:
        repo = self._repo(name, write=True)
        self._body()
        if branch in repo.branches:
            raise _No(409, f"Reference {branch} already exists")
        repo.branches[branch] = repo.branches["main"]
        self._json({})

    def _info(self, name: str, revision: str = "main") -> None:
        repo = self._repo(name)
        sha = self._commit(repo, revision)
        files = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        self._json({"id": name, "modelId": name, "sha": sha, "private": repo.private, "tags": [], "siblings": files})

    def _tree(self, name: str, revision: str) -> None:
        repo = self._repo(name)
        entries = []
        for path, value in sorted(repo.commits[self._commit(repo, revision)].items()):
            data = self.hub.objects[value] if isinstance(value, str) else value
            entry = {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
            if isinstance(value, str):
                entry["lfs"] = {"oid": value, "size": len(data), "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def _preupload(self, name: str, revision: str) -> None:
        repo, files = self._repo(name, write=True), json.loads(self._body())["files"]
        here = repo.commits[self._commit(repo, revision)]
        answers = []
        for file in files:
            binary = b"\0" in base64.b64decode(file["sample"]) or file["path"].endswith(".safetensors")
            large = "lfs" if binary or file["size"] > 10_000_000 else "regular"
            value = here.get(file["path"])
            oid = value if isinstance(value, str) else _git_oid(value) if value is not None else None
            answers.append({"path": file["path"], "uploadMode": large, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers})

    def _lfs_batch(self, name: str) -> None:
        self._repo(name, write=True)
        objects = []
        for wanted in json.loads(self._body())["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            if oid in self.hub.objects:  # nothing to do
                objects.append(wanted)
                continue
            if size > self.hub.part_bytes:
                count = -(-size // self.hub.part_bytes)
                header = {f"{i + 1:05d}": f"{self.hub.storage}/part/{oid}/{i + 1}" for i in range(count)}
                upload = {"href": f"{self.hub.url}/complete/{oid}", "header": {"chunk_size": str(self.hub.part_bytes)}}
                upload["header"] |= header
            else:
                upload = {"href": f"{self.hub.storage}/object/{oid}", "header": {}}
            verify = {"href": f"{self.hub.url}/{name}.git/info/lfs/verify"}
            objects.append({**wanted, "authenticated": True, "actions": {"upload": upload, "verify": verify}})
        self._json({"transfer": "basic", "objects": objects})

    def _object(self, oid: str) -> None:
        data = self._upload()
        if data is not None:
            self._store(oid, data)
            self._send(b"")

    def _part(self, oid: str, number: str) -> None:
        data = self._upload()
        if data is not None:
            self.hub.parts[oid, int(number)] = data
            self._send(b"", headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def _upload(self) -> bytes | None:
        """The body of an upload to storage, which takes no tokens; None if the connection was cut."""
        if "Authorization" in self.headers:
            raise _No(400, "a signed address and a token at once")
        if self.hub.fails("upload"):
            self.rfile.read(int(self.headers.get("Content-Length", 2)) // 2)
            self._hang_up()
            return None
        return self._body()

    def _complete(self, oid: str) -> None:
        parts = json.loads(self._body())["parts"]
        data = [self.hub.parts[oid, part["partNumber"]] for part in parts]
        if [part["etag"].strip('"') for part in parts] != [hashlib.md5(part).hexdigest() for part in data]:
            raise _No(400, "parts do not match their etags")
        self._store(oid, b"".join(data))
        self._json({})

    def _store(self, oid: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid:
            raise _No(400, f"{oid} has another hash")
        self.hub.objects[oid] = data

    def _verify(self, name: str) -> None:
        self._repo(name, write=True)
        wanted = json.loads(self._body())
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise _No(404, "object not found")
        self._json({})

    def _commits(self, name: str, branch: str) -> None:
        repo = self._repo(name, write=True)
        lines = [json.loads(line) for line in self._body().splitlines()]
        if branch not in repo.branches:
            raise _No(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        files = dict(repo.commits[repo.branches[branch]])
        assert lines[0]["key"] == "header" and lines[0]["value"]["summary"]
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _No(400, f"{value['path']}: its content was not uploaded")
                files[value["path"]] = value["oid"]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise _No(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise _No(400, f"unknown operation {key}")
        sha = repo.commit(branch, files)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    # -- downloads ---------------------------------------------------------------------------------------------------

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        sha = self._commit(repo, revision)
        if path not in repo.commits[sha]:
            raise _No(404, "Entry not found", "EntryNotFound")
        value = repo.commits[sha][path]
        if not isinstance(value, str):
            self._download(value, {"X-Repo-Commit": sha, "ETag": f'"{_git_oid(value)}"'})
            return
        size = str(len(self.hub.objects[value]))
        linked = {"X-Repo-Commit": sha, "X-Linked-Size": size, "X-Linked-Etag": f'"{value}"'}
        self._send(b"", 302, {**linked, "Location": f"{self.hub.storage}/object/{value}"})

    def _fetch(self, oid: str) -> None:
        if "Authorization" in self.headers:
            raise _No(400, "a signed address and a token at once")
        self._download(
            self.hub.objects[oid], {"ETag": f'"{oid}"'}, self.command == "GET" and self.hub.fails("download")
        )

    def _download(self, data: bytes, headers: dict[str, str], broken: bool = False) -> None:
        status, wanted = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            self.hub.ranges.append(first)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
            status, data = 206, data[first : last + 1]
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(len(data)), **headers}
        self._send(data[: len(data) // 2] if broken else data, status, headers)
        if broken:
            self._hang_up()


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_CARD_FIELDS = (("task", "type"), ("dataset", "type"), ("dataset", "name"))
_NAME = r"([^/]+/[^/]+)"
_ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate_yaml"),
    ("POST", f"/api/models/{_NAME}/branch/([^/]+)", "branch"),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", "preupload"),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", "commits"),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", "tree"),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", "info"),
    ("GET", f"/api/models/{_NAME}", "info"),
    ("POST", f"/{_NAME}\\.git/info/lfs/objects/batch", "lfs_batch"),
    ("POST", f"/{_NAME}\\.git/info/lfs/verify", "verify"),
    ("PUT", "/object/([0-9a-f]+)", "object"),
    ("PUT", "/part/([0-9a-f]+)/([0-9]+)", "part"),
    ("POST", "/complete/([0-9a-f]+)", "complete"),
    ("GET HEAD", "/object/([0-9a-f]+)", "fetch"),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", "resolve"),
]
