"""A Hub on loopback, as `huggingface_hub` calls it: repositories in memory, files over HTTP, faults on demand.

    with HubServer() as hub, hub_environment(monkeypatch, hub, cache, token=READER):
        commit = hub.add("org/name", {"config.json": b"{}", "model.safetensors": weights})
        hub.cut("model.safetensors", after=1000)
        snapshot_download("org/name")
        assert hub.sent("model.safetensors") == 1000 + len(weights)

Small files come from 127.0.0.1; those that LFS holds are redirected to localhost, another origin, which refuses every
request that brings a token along. Commits are named by what they hold, so that runs repeat.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download, hf_api, hf_file_system
from huggingface_hub.utils import _cache_manager, _detect_agent, _git_credential, _http

WRITER, READER, STRANGER = "hf_writer", "hf_reader", "hf_stranger"
LFS = (".safetensors", ".bin", ".gguf", ".model")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Access:
    """What a token may do: read what is private or gated, write at all."""

    user: str
    reads: bool = True
    writes: bool = True


@dataclass(frozen=True)
class File:
    data: bytes = field(repr=False)
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git holds in place of a file that LFS holds."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def blob(self) -> str:
        """git's name for it."""
        held = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob

    def entry(self, path: str, blob: str = "oid", lfs_name: str = "oid") -> dict[str, Any]:
        """What the tree tells of it; the info of a model tells the same by other names."""
        told = {"type": "file", "path": path, "size": len(self.data), blob: self.blob}
        lfs = {lfs_name: self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        return told | {"lfs": lfs} if self.lfs else told


@dataclass
class Repo:
    """Commits by their hash, refs by their full name (refs/heads/main, refs/tags/v1, refs/pr/1)."""

    id: str
    private: bool = False
    gated: bool | str = False
    lfs: tuple[str, ...] = LFS
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, ref: str, files: Mapping[str, bytes], message: str = "", parent: str | None = None) -> str:
        held = {path: File(data, path.endswith(self.lfs)) for path, data in sorted(files.items())}
        named = [self.id, ref, parent, message, {path: file.etag for path, file in held.items()}]
        commit = hashlib.sha1(json.dumps(named).encode()).hexdigest()
        self.commits[commit], self.messages[commit], self.refs[ref] = held, message, commit
        return commit

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a tag, a full ref or a commit."""
        known = self.refs | {commit: commit for commit in self.commits}
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((known[name] for name in names if name in known), None)

    def at(self, revision: str) -> dict[str, bytes]:
        return {path: file.data for path, file in self.commits[self.find(revision) or revision].items()}

    @property
    def files(self) -> dict[str, bytes]:
        return self.at("main")

    @property
    def pull_requests(self) -> dict[str, str]:
        return {ref: commit for ref, commit in self.refs.items() if ref.startswith("refs/pr/")}

    def entries(self, commit: str) -> dict[str, dict[str, Any]]:
        """{path: entry} of all files and folders, as the tree lists them."""
        files = self.commits[commit]
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
        listed = {path: {"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders}
        return listed | {path: file.entry(path) for path, file in files.items()}


@dataclass
class Request:
    """One request as it came, and what it was answered with: status, bytes of body."""

    method: str
    host: str
    path: str
    range: str | None = None
    token: str | None = None
    status: int = 0
    sent: int = 0
    body: bytes = field(default=b"", repr=False)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def concerns(self, part: str, method: str | None) -> bool:
        return part in unquote(self.path) and method in (None, self.method)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """Its one argument is the Reply that says no."""


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path holds `part`, after `skip` that go well."""

    part: str
    method: str | None
    times: int
    skip: int
    reply: Reply | None = None
    after: int | None = None
    stall: bool = False

    def strikes(self, asked: Request, reply: Reply | None = None) -> bool:
        """Those with a reply of their own strike before there is one, the others where a body is sent."""
        timely = reply is None if self.reply else reply is not None and reply.status in (200, 206)
        if not (timely and self.times and asked.concerns(self.part, self.method)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


def served(content: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


def refused(status: int, message: str, code: str = "", **headers: str) -> RefusedError:
    named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return RefusedError(served({"error": message}, status, **named, **headers))


ROUTES: list[tuple[re.Pattern[str], Callable[..., Reply]]] = []
PARTS = {"repo": "[^/]+/[^/]+", "revision": "[^/]+", "path": ".+", "oid": "[0-9a-f]{64}"}


def route(methods: str, template: str) -> Callable[..., Any]:
    """Have a method of the server answer "GET|HEAD", "/{repo}/resolve/{revision}/{path}"."""
    pattern = re.sub(r"{(\w+)}", lambda name: f"(?P<{name[1]}>{PARTS[name[1]]})", template)

    def register(answer: Callable[..., Reply]) -> Callable[..., Reply]:
        ROUTES.append((re.compile(f"(?:{methods}) {pattern}"), answer))
        return answer

    return register


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub` serves at `hub.endpoint`; an error of its own is raised at the end."""

    request_queue_size = 64
    daemon_threads = False  # closing waits for them, so that no answer outlives its test

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = f"http://localhost:{self.server_port}"
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens = {
            WRITER: Access("writer"),
            READER: Access("reader", writes=False),
            STRANGER: Access("stranger", reads=False),
        }
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.errors: list[BaseException] = []
        self.lock, self.closing = threading.Lock(), threading.Event()

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        if self.errors:
            raise self.errors[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up; anything else is a mistake in here."""
        if not isinstance(error := sys.exc_info()[1], OSError):
            self.errors.append(error)

    def add(
        self,
        repo: str,
        files: Mapping[str, bytes] | Path,
        branch: str = "main",
        tag: str | None = None,
        message: str = "added",
        **settings: Any,
    ) -> str:
        """Commit these files, and these only, to a branch; settings are those of Repo. Returns the commit."""
        if isinstance(files, Path):
            files = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        found = self.repos.setdefault(repo, Repo(repo))
        for name, value in settings.items():
            setattr(found, name, value)
        commit = found.commit(f"refs/heads/{branch}", files, message, found.find(branch))
        self._keep(found, commit)
        if tag:
            found.refs[f"refs/tags/{tag}"] = commit
        return commit

    def fail(
        self, part: str, status: int, times: int = 1, method: str | None = None, skip: int = 0, **headers: str
    ) -> None:
        """Answer with this status: fail("resolve", 429, times=2, **{"Retry-After": "0"})."""
        self.faults.append(Fault(part, method, times, skip, refused(status, f"fault {status}", **headers).args[0]))

    def cut(self, part: str, after: int, times: int = 1, skip: int = 0, method: str = "GET") -> None:
        """Hang up after so many bytes of a body."""
        self.faults.append(Fault(part, method, times, skip, after=after))

    def stall(self, part: str, after: int = 0, times: int = 1, skip: int = 0, method: str = "GET") -> None:
        """Send so many bytes of a body, then nothing more until the server ends."""
        self.faults.append(Fault(part, method, times, skip, after=after, stall=True))

    def asked(self, part: str = "", method: str | None = None) -> list[Request]:
        """The requests whose path holds `part`, in the order they came."""
        return [one for one in self.requests if one.concerns(part, method)]

    def sent(self, part: str = "") -> int:
        """Bytes of bodies, all such requests together."""
        return sum(one.sent for one in self.asked(part))

    def answer(self, asked: Request) -> tuple[Reply, Fault | None]:
        """The reply, and the fault that its body meets on the way."""
        with self.lock:
            self.requests.append(asked)
            if fault := next((fault for fault in self.faults if fault.strikes(asked)), None):
                return fault.reply or Reply(), None
            try:
                reply = self._routed(asked)
            except RefusedError as refusal:
                reply = refusal.args[0]
            return reply, next((fault for fault in self.faults if fault.strikes(asked, reply)), None)

    def _routed(self, asked: Request) -> Reply:
        for pattern, respond in ROUTES:
            if match := pattern.fullmatch(f"{asked.method} {urlsplit(asked.path).path}"):
                return respond(self, asked, **{name: unquote(part) for name, part in match.groupdict().items()})
        raise refused(404, f"no such page: {asked.path}")

    def _keep(self, repo: Repo, commit: str) -> None:
        self.objects |= {file.sha256: file.data for file in repo.commits[commit].values() if file.lfs}

    def _access(self, asked: Request) -> Access | None:
        if asked.token and asked.token not in self.tokens:
            raise refused(401, "Invalid credentials in Authorization header")
        return self.tokens.get(asked.token or "")

    def _repo(self, asked: Request, repo: str) -> Repo:
        """The repository, for those who may know of it."""
        access, found = self._access(asked), self.repos.get(repo)
        if found is None or (found.private and not (access and access.reads)):
            raise refused(404 if access else 401, "Repository not found", "RepoNotFound")
        return found

    def _commit(self, repo: Repo, revision: str) -> str:
        if (commit := repo.find(revision)) is None:
            raise refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _writable(self, asked: Request, repo: str) -> Repo:
        """The repository, for those who may push to it; a pull request takes no more than a token that writes."""
        found, access = self._repo(asked, repo), self._access(asked)
        if access is None:
            raise refused(401, "Invalid username or password.", "RepoNotFound")
        if not access.writes or not (access.reads or "create_pr" in asked.query):
            raise refused(403, "Authorization error.")
        return found

    @route("GET", "/api/whoami-v2")
    def whoami(self, asked: Request) -> Reply:
        if (access := self._access(asked)) is None:
            raise refused(401, "Invalid username or password.")
        role = {"displayName": "tests", "role": "write" if access.writes else "read"}
        return served({"type": "user", "name": access.user, "orgs": [], "auth": {"accessToken": role}})

    @route("GET", "/api/models/{repo}")
    @route("GET", "/api/models/{repo}/revision/{revision}")
    def info(self, asked: Request, repo: str, revision: str = "main") -> Reply:
        found = self._repo(asked, repo)
        commit = self._commit(found, revision)
        siblings = [
            {"rfilename": path} | (file.entry(path, "blobId", "sha256") if "blobs" in asked.query else {})
            for path, file in found.commits[commit].items()
        ]
        told = {"id": repo, "sha": commit, "private": found.private, "gated": found.gated, "siblings": siblings}
        return served(told | {"tags": [], "createdAt": DATE, "lastModified": DATE})

    @route("GET", "/api/models/{repo}/tree/{revision}")
    @route("GET", "/api/models/{repo}/tree/{revision}/{path}")
    def tree(self, asked: Request, repo: str, revision: str, path: str = "") -> Reply:
        found = self._repo(asked, repo)
        entries = found.entries(self._commit(found, revision))
        if path and entries.get(path, {}).get("type") != "directory":
            raise refused(404, f"{path} does not exist on {revision}", "EntryNotFound")
        start, deep = path + "/" * bool(path), asked.query.get("recursive") == ["true"]
        inside = (one for name, one in sorted(entries.items()) if name.startswith(start))
        return served([one for one in inside if deep or "/" not in one["path"].removeprefix(start)])

    @route("POST", "/api/models/{repo}/paths-info/{revision}")
    def paths_info(self, asked: Request, repo: str, revision: str) -> Reply:
        found = self._repo(asked, repo)
        entries = found.entries(self._commit(found, revision))
        return served([entries[path] for path in parse_qs(asked.body.decode())["paths"] if path in entries])

    @route("GET", "/api/models/{repo}/refs")
    def list_refs(self, asked: Request, repo: str) -> Reply:
        kinds = {"branches": "heads", "tags": "tags", "pullRequests": "pr", "converts": "convert"}
        listed: dict[str, list[dict[str, str]]] = {kind: [] for kind in kinds}
        for ref, commit in self._repo(asked, repo).refs.items():
            for kind, folder in kinds.items():
                if ref.startswith(start := f"refs/{folder}/"):
                    listed[kind].append({"name": ref.removeprefix(start), "ref": ref, "targetCommit": commit})
        return served(listed)

    @route("GET|HEAD", "/{repo}/resolve/{revision}/{path}")
    def resolve(self, asked: Request, repo: str, revision: str, path: str) -> Reply:
        found, access = self._repo(asked, repo), self._access(asked)
        if found.gated and not (access and access.reads):
            raise refused(403 if access else 401, f"Access to model {repo} is restricted.", "GatedRepo")
        commit = self._commit(found, revision)
        if (file := found.commits[commit].get(path)) is None:
            raise refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"'}
        if not file.lfs:
            return part_of(file.data, asked.range, headers)
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
        location = f"{self.elsewhere}/lfs/{file.sha256}?name={quote(path, safe='')}"
        return Reply(302, b"", headers | {"Location": location})

    @route("GET|HEAD|PUT", "/lfs/{oid}")
    def large(self, asked: Request, oid: str) -> Reply:
        """The other origin; its addresses are signed, so a token is a leak."""
        if asked.token or not self.elsewhere.endswith(asked.host):
            raise refused(400, "Only one auth mechanism allowed")
        if asked.method == "PUT":
            if hashlib.sha256(asked.body).hexdigest() != oid:
                raise refused(400, "The content does not have this sha256")
            self.objects[oid] = asked.body
            return Reply()
        if oid not in self.objects:
            raise refused(404, "NoSuchKey")
        return part_of(self.objects[oid], asked.range, {"ETag": f'"{oid}"'})

    @route("POST", "/api/repos/create")
    def create(self, asked: Request) -> Reply:
        if (access := self._access(asked)) is None:
            raise refused(401, "Invalid username or password.")
        wanted = asked.json
        owner = wanted.get("organization") or access.user
        if not access.writes or not (access.reads or owner == access.user):
            raise refused(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        repo = f"{owner}/{wanted['name']}"
        if repo in self.repos:
            return served({"error": "You already created this model repo", "url": f"{self.endpoint}/{repo}"}, 409)
        rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS)
        self.add(repo, {".gitattributes": rules.encode()}, private=wanted.get("visibility") == "private")
        return served({"url": f"{self.endpoint}/{repo}", "id": repo})

    @route("POST", "/api/models/{repo}/branch/{revision}")
    def branch(self, asked: Request, repo: str, revision: str) -> Reply:
        found, ref = self._writable(asked, repo), f"refs/heads/{revision}"
        if ref in found.refs:
            raise refused(409, "Reference already exists")
        found.refs[ref] = self._commit(found, (asked.json if asked.body else {}).get("startingPoint", "main"))
        return served({"ref": ref}, 201)

    @route("POST", "/api/validate-yaml")
    def validate_card(self, asked: Request) -> Reply:
        empty = not asked.json["content"].startswith("---")
        warnings = [{"message": "empty or missing yaml metadata in repo card"}] * empty
        return served({"errors": [], "warnings": warnings})

    @route("POST", "/api/models/{repo}/preupload/{revision}")
    def preupload(self, asked: Request, repo: str, revision: str) -> Reply:
        found = self._writable(asked, repo)
        held = found.commits[self._commit(found, revision)]
        files = [
            {
                "path": path,
                "uploadMode": "lfs" if path.endswith(found.lfs) else "regular",
                "shouldIgnore": False,
                "oid": held[path].etag if path in held else None,
            }
            for path in (one["path"] for one in asked.json["files"])
        ]
        return served({"files": files})

    @route("POST", "/{repo}.git/info/lfs/objects/batch")
    def batch(self, asked: Request, repo: str) -> Reply:
        self._repo(asked, repo)
        verify = {"href": f"{self.endpoint}/{repo}.git/info/lfs/verify"}
        objects = [
            {"oid": one["oid"], "size": one["size"]}
            if one["oid"] in self.objects
            else one | {"actions": {"upload": {"href": f"{self.elsewhere}/lfs/{one['oid']}"}, "verify": verify}}
            for one in asked.json["objects"]
        ]
        return served({"transfer": "basic", "objects": objects})

    @route("POST", "/{repo}.git/info/lfs/verify")
    def verify(self, asked: Request, repo: str) -> Reply:
        self._repo(asked, repo)
        if len(self.objects.get(asked.json["oid"], b"")) != asked.json["size"]:
            raise refused(400, "not uploaded")
        return Reply()

    @route("POST", "/api/models/{repo}/commit/{revision}")
    def push(self, asked: Request, repo: str, revision: str) -> Reply:
        found = self._writable(asked, repo)
        parent = self._commit(found, revision)
        (header, *changes) = [json.loads(line) for line in asked.body.splitlines()]
        if header["value"].get("parentCommit", parent) != parent:
            raise refused(412, "A commit has happened since. Please refresh and try again.")
        number = len(found.pull_requests) + 1
        ref = revision if revision in found.refs else f"refs/heads/{revision}"
        ref = f"refs/pr/{number}" if "create_pr" in asked.query else ref
        commit = found.commit(ref, self._changed(found.at(parent), changes), header["value"]["summary"], parent)
        self._keep(found, commit)
        told = {"commitOid": commit, "commitUrl": f"{self.endpoint}/{repo}/commit/{commit}"}
        return served(told | {"pullRequestUrl": f"{self.endpoint}/{repo}/discussions/{number}"})

    def _changed(self, files: dict[str, bytes], changes: list[dict[str, Any]]) -> dict[str, bytes]:
        for change in changes:
            path, value = change["value"]["path"], change["value"]
            match change["key"]:
                case "file":
                    files[path] = base64.b64decode(value["content"])
                case "lfsFile" if value["oid"] in self.objects:
                    files[path] = self.objects[value["oid"]]
                case "deletedFile" if path in files:
                    del files[path]
                case "deletedFolder":
                    files = {name: data for name, data in files.items() if not name.startswith(path.rstrip("/") + "/")}
                case _:
                    raise refused(400, f"cannot apply {change['key']} to {path}")
        return files


def part_of(data: bytes, wanted: str | None, headers: Mapping[str, str]) -> Reply:
    """All of it, or the one range that was asked for."""
    headers = {"Accept-Ranges": "bytes", **headers}
    match = re.fullmatch(r"bytes=(?=.*\d)(\d*)-(\d*)", wanted or "")
    if match is None:
        return Reply(200, data, headers)
    first, last = match.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= end:
        raise refused(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


class Handler(BaseHTTPRequestHandler):
    """HTTP alone: reads the request, asks the server, sends the reply, closes."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    server: HubServer

    def do_GET(self) -> None:
        self.close_connection = True
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        asked = Request(self.command, self.headers["Host"], self.path, self.headers["Range"], token, body=self._body())
        try:
            reply, fault = self.server.answer(asked)
        except Exception as error:
            self.server.errors.append(error)
            reply, fault = served({"error": repr(error)}, 500), None
        self._send(asked, reply, fault)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, asked: Request, reply: Reply, fault: Fault | None) -> None:
        body = b"" if asked.method == "HEAD" else reply.body
        cut = body if fault is None else body[: fault.after]
        asked.status, asked.sent = reply.status, len(cut)
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(cut)
        if fault and fault.stall:
            self.server.closing.wait(60)

    def log_message(self, *_: object) -> None:
        """Tests read `requests`."""


def environment(hub: HubServer, cache: Path, token: str | None = None) -> dict[str, str]:
    """Variables with which a new process meets this Hub and no other; its home is beside the cache."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(cache.with_name(f"{cache.name}-home")),
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_TOKEN": token or "",
        "HUGGING_FACE_HUB_TOKEN": "",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@contextlib.contextmanager
def hub_environment(
    monkeypatch: pytest.MonkeyPatch, hub: HubServer, cache: Path, token: str | None = None
) -> Iterator[list[float]]:
    """Have `huggingface_hub`, as imported here, meet this Hub and no other; yields the waits (s) it was spared."""
    waits: list[float] = []
    variables = environment(hub, cache, token)
    home = Path(variables["HF_HOME"])
    with monkeypatch.context() as patch, warnings.catch_warnings():
        # The library hands LFS uploads to its client by a name that the client deprecates.
        warnings.filterwarnings("ignore", "Use 'content=<...>' to upload", DeprecationWarning)
        for name, value in variables.items():
            patch.setenv(name, value)
        settings = {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": constants.HF_URL_HOSTS | {"127.0.0.1"},
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        }
        for name, value in settings.items():
            patch.setattr(constants, name, value)
        patch.setattr(_cache_manager, "HF_HUB_CACHE", str(cache))
        patch.setattr(_git_credential, "ENDPOINT", hub.endpoint)
        patch.setattr(_http, "_HUB_ORIGINS", _http._HUB_ORIGINS | {_http._url_origin(hub.endpoint)})
        for made_at_import in (hf_api.api, hf_file_system.hffs, hf_file_system.hffs._api):
            patch.setattr(made_at_import, "endpoint", hub.endpoint)
        patch.setattr(_detect_agent, "_registry", _detect_agent._EMPTY_REGISTRY)
        for module in (_http, file_download):
            patch.setattr(module, "time", types.SimpleNamespace(**{**vars(time), "sleep": waits.append}))
        try:
            forget()
            yield waits
        finally:
            forget()


def forget() -> None:
    """Drop what the library remembers between calls: its client, its file systems."""
    huggingface_hub.close_session()
    hf_file_system.HfFileSystem.clear_instance_cache()
    hf_file_system.hffs.invalidate_cache()
