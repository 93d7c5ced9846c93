"""A Hub on loopback, as `huggingface_hub` calls it: repositories in memory, files over HTTP, faults on demand.

    with HubServer() as hub, hub_environment(monkeypatch, hub, cache, token=READER):
        commit = hub.add("org/name", {"config.json": b"{}", "model.safetensors": weights})
        hub.cut("model.safetensors", after=1000)
        snapshot_download("org/name")
        assert hub.sent("model.safetensors") == 1000 + len(weights)

Small files come from 127.0.0.1; those that LFS holds are redirected to localhost, another origin, which refuses every
request with a token. A commit's name is the hash of its content, so that runs repeat.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from support.hub_repos import DATE, LFS, READER, STRANGER, WRITER, Access, Repo
from support.hub_requests import ROUTES, Fault, RefusedError, Reply, Request, part_of, refused, route, served


class HubServer(ThreadingHTTPServer):
    """`with HubServer() as hub` serves at `hub.endpoint`, and raises the server's own errors at the end."""

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
        """Clients may hang up; any other error is a mistake in this file."""
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
        """Hang up after this many bytes of a body."""
        self.faults.append(Fault(part, method, times, skip, after=after))

    def stall(self, part: str, after: int = 0, times: int = 1, skip: int = 0, method: str = "GET") -> None:
        """Send this many bytes of a body, then nothing more until the server ends."""
        self.faults.append(Fault(part, method, times, skip, after=after, stall=True))

    def asked(self, part: str = "", method: str | None = None) -> list[Request]:
        """The requests whose path contains `part`, in their order."""
        return [one for one in self.requests if one.concerns(part, method)]

    def sent(self, part: str = "") -> int:
        """The bytes of the bodies of all these requests."""
        return sum(one.sent for one in self.asked(part))

    def answer(self, asked: Request) -> tuple[Reply, Fault | None]:
        """The reply, and the fault that interrupts its body."""
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
        """The repository. Raises RefusedError if the token may not know of it."""
        access, found = self._access(asked), self.repos.get(repo)
        if found is None or (found.private and not (access and access.reads)):
            raise refused(404 if access else 401, "Repository not found", "RepoNotFound")
        return found

    def _commit(self, repo: Repo, revision: str) -> str:
        if (commit := repo.find(revision)) is None:
            raise refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _writable(self, asked: Request, repo: str) -> Repo:
        """The repository. Raises RefusedError if the token may not push; any writing token may make a pull request."""
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
