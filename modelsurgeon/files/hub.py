"""The Hub: a repository at one commit; nothing of it is stored before it is needed.

    open    the commit, the names of the files and their sizes, by one request
    plan    config, index and headers: from the Hub's cache where they are there, else by ranges, which are not stored
    write   the files that are needed, downloaded to the cache; by ranges as well where they are streamed

A revision is resolved once: a branch that moves later changes nothing. Token, endpoint, cache, offline mode and retries
are those of huggingface_hub (HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import huggingface_hub
from huggingface_hub import HfFileSystem, constants, errors, hf_raise_for_status, snapshot_download
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the client that the library uses
from huggingface_hub.utils import build_hf_headers, http_backoff, tqdm, validate_repo_id  # type: ignore[attr-defined]

from modelsurgeon.errors import SourceError, first_line
from modelsurgeon.files.file import LocalFile, file_at
from modelsurgeon.files.remote import REMOTE_MEMORY, RemoteFile, RemoteFolder

BUSY = {408, 429, 500, 502, 503, 504}  # answers after which the library asks again

log = logging.getLogger(__name__)


class HubFolder(RemoteFolder):
    """One repository at one commit.

    commit    its full hash
    sizes     {name: bytes} of all its files, "folder/name" of those in folders
    revision  what the user asked for, of which `commit` is the current one
    stream    read by ranges, and never store
    offline   read the Hub's cache alone
    """

    def __init__(
        self, repo: str, commit: str, sizes: Mapping[str, int], revision: str | None, *, stream: bool, offline: bool
    ) -> None:
        super().__init__(repo, None, f"{repo}@{commit}")
        self.repo, self.commit = repo, commit
        self.memory = REMOTE_MEMORY if stream else 0
        self._listing = {name: {"size": size, "etag": commit} for name, size in sizes.items() if "/" not in name}
        self._folders = sorted({name.partition("/")[0] for name in sizes if "/" in name})
        self._revision, self._stream, self._offline = revision, stream, offline
        if offline:
            self.path = self._snapshot

    def folders(self) -> list[str]:
        return self._folders

    def local(self, name: str) -> LocalFile | None:
        """The copy in the Hub's cache. Raises SourceError for a link out of it, and where offline without it."""
        path = _cached(self.repo, name, self.commit)
        if path is None and self._offline:
            raise _out_of_reach(self.repo, self._revision, name)
        if path is None:
            return None
        cache = path.parents[3].resolve()
        return file_at(path, cache / path.parents[2].name / "blobs", cache / "blobs")  # of the repository, of all

    def fetch(self, names: list[str]) -> None:
        """Download these files and those read already to the Hub's cache, all at the one commit."""
        if self._stream:
            return
        wanted = sorted({*names, *self._files})
        missing = [name for name in wanted if self.local(name) is None]
        if missing:
            patterns = list(map(escape, missing))
            with hub_errors(self.repo, self._revision):
                snapshot_download(self.repo, revision=self.commit, allow_patterns=patterns, tqdm_class=_Bar)
        for name in wanted:
            copy = self.local(name)
            if copy is None:  # the library accepts an incomplete snapshot where the Hub fails
                raise OSError(f"{self.repo}: the Hub fails, {name} was not downloaded; wait, and run again")
            self.file(name).lies_at(copy)
        self.path = self._snapshot
        if self._revision != self.commit:  # refs/<revision> says which commit to take where the Hub cannot be reached
            ref = self._snapshot.parents[1] / "refs" / (self._revision or constants.DEFAULT_REVISION)
            with suppress(OSError):  # a shared cache may be read only
                ref.parent.mkdir(parents=True, exist_ok=True)
                if not ref.exists() or ref.read_text() != self.commit:
                    ref.write_text(self.commit)

    @property
    def _snapshot(self) -> Path:
        return Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}" / "snapshots" / self.commit

    def read_range(self, file: RemoteFile, start: int, stop: int) -> bytes:
        path = f"{self._root}/{file.name}"
        with hub_errors(self.repo, self._revision):
            try:
                data: bytes = self._ranges.cat_file(path, start, stop, cache_type="none", size=file.size)
            except RuntimeError:  # a thread that lost its connection closed the client that all of them share
                data = self._ranges.cat_file(path, start, stop, cache_type="none", size=file.size)
        return data

    @cached_property
    def _ranges(self) -> HfFileSystem:
        return _Files(skip_instance_cache=True)

    def __str__(self) -> str:
        return f"{self.repo} (as far as it is in the Hub's cache)" if self._offline else self.repo

    def check_unchanged(self, file: RemoteFile) -> None:
        """A commit does not change."""


class _Files(HfFileSystem):
    """Files of a commit that is known to exist: reading one takes no request but that for its bytes."""

    def isdir(self, path: str) -> bool:
        return False

    def _repo_and_revision_exist(self, *_: Any, **__: Any) -> tuple[bool, Exception | None]:
        return True, None


class _Bar(tqdm):
    """The library's progress bar, on a terminal only; the library itself shows it everywhere."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings["disable"] = settings.get("disable") or not sys.stderr.isatty()
        super().__init__(*args, **settings)  # type: ignore[no-untyped-call]


def open_repository(repo: str, revision: str | None = None, *, stream: bool = False) -> HubFolder:
    """A repository at the current commit of the revision; at the cached one where the Hub cannot be reached.

    stream  never store what is read
    Raises SourceError where it cannot be opened, OSError where network or Hub fail.
    """
    with hub_errors(repo, revision, opening=True):
        validate_repo_id(repo)
        try:
            commit, sizes = _ask(repo, revision, once=True)
        except (HTTPError, errors.OfflineModeIsEnabled) as error:
            if isinstance(error, errors.HfHubHTTPError):  # the Hub answers: what is cached may be outdated
                raise
            if folder := _from_cache(repo, revision, stream):
                return folder
            if isinstance(error, errors.OfflineModeIsEnabled) or _is_unreachable(error):
                raise
            commit, sizes = _ask(repo, revision)
    return HubFolder(repo, commit, sizes, revision, stream=stream, offline=False)


def _is_unreachable(error: BaseException) -> bool:
    """Whether no connection came about. Versions of the library differ in their client, hence in the class."""
    return any(kind.__name__ == "ConnectError" for kind in type(error).__mro__)


def _ask(repo: str, revision: str | None, *, once: bool = False) -> tuple[str, dict[str, int]]:
    """(commit, {name: bytes}), as `model_info` has it; but `model_info` gives up where the Hub is busy.

    once  whether an error of the network is final; else the request is repeated
    """
    url = f"{constants.ENDPOINT}/api/models/{repo}" + (f"/revision/{quote(revision, safe='')}" if revision else "")
    options: dict[str, Any] = {"params": {"blobs": True}, "headers": build_hf_headers()}
    options |= {"retry_on_exceptions": ()} if once else {}
    answer = http_backoff("GET", url, timeout=constants.HF_HUB_ETAG_TIMEOUT, **options)
    hf_raise_for_status(answer)
    try:
        repository = answer.json()
        return str(repository["sha"]), {file["rfilename"]: int(file["size"]) for file in repository["siblings"]}
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"{repo}: {constants.ENDPOINT} does not answer as a Hub; is HF_ENDPOINT right?") from None


def _from_cache(repo: str, revision: str | None, stream: bool) -> HubFolder | None:
    """The repository as far as the cache holds it; all its files by name where the library kept a listing."""
    config = _cached(repo, "config.json", revision)
    if config is None:
        return None
    commit = config.parent.name
    sizes = {path.name: path.stat().st_size for path in config.parent.iterdir() if path.is_file()}
    if hasattr(huggingface_hub, "get_cached_repo_tree"):  # older versions keep no listing
        with suppress(errors.CachedRepoTreeNotFoundError):
            listed = huggingface_hub.get_cached_repo_tree(repo, revision=commit)
            sizes = {file.path: file.size for file in listed}
    if not constants.HF_HUB_OFFLINE:
        log.warning("%s: the Hub cannot be reached; taken from its cache, commit %s", repo, commit)
    return HubFolder(repo, commit, sizes, revision, stream=stream, offline=True)


def _cached(repo: str, name: str, revision: str | None) -> Path | None:
    path = huggingface_hub.try_to_load_from_cache(repo, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _out_of_reach(repo: str, revision: str | None, name: str = "") -> SourceError:
    what, at = name or "no such folder,", f" at revision {revision!r}" if revision else ""
    return SourceError(f"{repo}: {what} not in the Hub's cache{at}, and the Hub cannot be reached")


# --- errors ----------------------------------------------------------------------------------------------------------


@contextmanager
def hub_errors(repo: str, revision: str | None = None, *, opening: bool = False) -> Iterator[None]:
    """Raise the library's errors in one line: SourceError where the request is at fault, else OSError.

    opening  whether the user may have meant the name of a folder
    """
    try:
        yield
    except errors.LocalEntryNotFoundError as error:  # of a download: its cause says why the Hub was not reached
        raise _as_ours(error.__cause__ or error, repo, revision, opening) from None
    except (HTTPError, errors.EntryNotFoundError, errors.OfflineModeIsEnabled, ValueError) as error:
        raise _as_ours(error, repo, revision, opening) from None


def _as_ours(error: BaseException, repo: str, revision: str | None, opening: bool) -> Exception:
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return _out_of_reach(repo, revision)
    start = f"{repo}: no such folder, and " if opening else f"{repo}: "
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status == 429:
            limit = "" if huggingface_hub.get_token() else "; with a token (HF_TOKEN) more is allowed"
            return OSError(f"{repo}: the Hub limits how often it may be asked (429); wait a few minutes{limit}")
        if status in BUSY:
            way_out = "wait, or use its cache: HF_HUB_OFFLINE=1"
            return OSError(f"{repo}: the Hub fails ({status}), also when asked again; {way_out}")
        missing = isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError)
        return SourceError((start if missing else f"{repo}: ") + _refusal(error, repo, revision))
    reason = first_line(error)
    if not isinstance(error, HTTPError):
        return SourceError(f"{repo}: {reason}")
    if _is_unreachable(error):
        return OSError(f"{start}the Hub cannot be reached at {constants.ENDPOINT} ({reason})")
    return OSError(f"{repo}: the connection to the Hub breaks, also when made again ({reason}); run again")


def _refusal(error: errors.HfHubHTTPError, repo: str, revision: str | None) -> str:
    """Why the Hub refuses, and the way out."""
    token, page = huggingface_hub.get_token(), f"{constants.ENDPOINT}/{repo}"
    log_in = "set HF_TOKEN, or run hf auth login"
    match error:
        case errors.GatedRepoError() if token:
            return f"gated, and the account of this token has no access; ask for it at {page}"
        case errors.GatedRepoError():
            return f"gated; accept its terms at {page}, then {log_in}"
        case errors.RevisionNotFoundError():
            return f"no revision {revision!r}; expected a branch, a tag or a commit"
        case errors.DisabledRepoError():
            return "disabled by the Hub"
        case errors.RepositoryNotFoundError() if token:
            return "no such repository on the Hub, or none that this token may see"
        case errors.RepositoryNotFoundError():
            return f"no such repository on the Hub; for a private one {log_in}"
        case errors.EntryNotFoundError():
            return f"{error.response.url.path.rpartition('/')[2]} is not there any more at this commit"
    if error.response.status_code == 401:
        return f"the token is not accepted; set HF_TOKEN to one of {constants.ENDPOINT}/settings/tokens, or to nothing"
    return f"{error.response.status_code}: {error.server_message or 'refused by the Hub'}"
