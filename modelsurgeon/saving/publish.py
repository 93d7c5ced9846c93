"""Publishing: a finished, verified folder becomes one commit of a Hub repository, or files behind a URL.

    check_push    checks name, token, repository and rights, before anything is done
    push          adds all files and the model card and deletes stale weights: one commit on the one that was read
    check_url     checks that s3://, gs:// ... can be written, and that nothing there would be lost
    upload        copies file by file, config.json last: while it is missing, there is no checkpoint

The folder itself is only read: the card exists in the repository alone.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants, is_offline_mode
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the client it uses
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    logging,
    validate_repo_id,
)

from modelsurgeon.checkpoints.weight_files import ADAPTER
from modelsurgeon.errors import ModelSurgeonError, OutputError, first_line
from modelsurgeon.files.hub import BUSY
from modelsurgeon.files.remote import file_system_of

WAITS = (1.0, 4.0)  # seconds before the second and the third try, where the Hub names none
LONGEST_WAIT = 300.0  # seconds: the period over which the Hub counts requests
CARD, CONFIG, INDEX = "README.md", "config.json", ".safetensors.index.json"
OPENS = 2  # the place in the order of upload of the files that a checkpoint is opened by
WEIGHTS = re.compile(r"(?!adapter_)[^/]*\.safetensors(\.index\.json)?")  # adapters belong to others and load alone

T = TypeVar("T")


# --- the Hub ---------------------------------------------------------------------------------------------------------


def check_push(repo: str, *, private: bool, create_pr: bool) -> None:
    """Raise OutputError where a push is known to fail, OSError where network or Hub do; nothing is changed.

    Only a push shows whether an organisation lets this member create repositories, and whether there is room.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise OutputError(f"{repo}: {first_line(error)}") from None
    if "/" not in repo:
        raise OutputError(f"{repo}: not the name of a repository; expected org/name")
    if is_offline_mode():
        raise OutputError(f"{repo}: offline mode pushes nothing; unset HF_HUB_OFFLINE")
    api = HfApi()
    with _hub_errors(repo, create_pr), _silenced(quiet=True):
        who = _patiently(api.whoami)
        token = who.get("auth", {}).get("accessToken", {}).get("role")
        if token == "read":
            name = who.get("name")
            raise OutputError(f"{repo}: the token of {name} may only read; make one that writes at {_page()}")
        found = _find(api, repo)
        if found is None:
            _check_new(repo, create_pr, who, token)
            return
        _refuse_adapter(repo, [file.rfilename for file in found.siblings or ()])
        if private and not found.private:
            raise OutputError(f"{repo}: exists and is public; --private is for a new repository; omit it")
        # The first request of a push, for a file that goes with the commit: an answer means that pushes are allowed.
        question = [CommitOperationAdd(CARD, b"")]
        _patiently(lambda: api.preupload_lfs_files(repo, question, create_pr=create_pr))


def push(
    folder: Path, repo: str, *, private: bool, create_pr: bool, card: str, message: str, quiet: bool = False
) -> str:
    """Commit the folder's files with `card` as README.md; returns the URL of the commit or of the pull request.

    The same commit deletes weights that this folder does not have; all else stays. Where the repository holds exactly
    this already, the URL is that of its last commit.
    Raises OutputError where the Hub refuses, OSError where it or the network fails: the folder stays as it is.
    """
    options = " --private" * private + " --create-pr" * create_pr
    way_out = f"; the output stays in {folder}: hf upload {repo} {shlex.quote(str(folder))}{options}"
    api = HfApi()
    with _hub_errors(repo, create_pr, way_out), _silenced(quiet):
        found = _find(api, repo)
        if found is None:
            _patiently(lambda: api.create_repo(repo, private=private or None, exist_ok=True))
            found = _patiently(lambda: api.model_info(repo))
        files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name != CARD}
        before = [file.rfilename for file in found.siblings or ()]
        _refuse_adapter(repo, before)
        stale = [name for name in before if WEIGHTS.fullmatch(name) and name not in files]
        operations: list[CommitOperationAdd | CommitOperationDelete]
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        operations += [CommitOperationAdd(CARD, card.encode()), *map(CommitOperationDelete, stale)]
        done = _patiently(
            lambda: api.create_commit(
                repo, operations, commit_message=message, create_pr=create_pr, parent_commit=found.sha
            )
        )
    return done.pr_url or done.commit_url


def _check_new(repo: str, create_pr: bool, who: dict[str, Any], token: str | None) -> None:
    """Raise OutputError where a repository that this token does not see cannot be created."""
    if create_pr:
        raise OutputError(f"{repo}: no such repository to open a pull request in; without --create-pr it is created")
    owner, name = repo.split("/")[0], who.get("name")
    members = {str(org.get("name")).lower() for org in who.get("orgs") or ()}
    # Other tokens list only the organisations that they were issued for.
    if token == "write" and owner.lower() not in {str(name).lower(), *members}:
        raise OutputError(f"{repo}: no such repository, and {name} cannot make one: no member of {owner}")


def _find(api: HfApi, repo: str) -> ModelInfo | None:
    """The Hub's description of a repository; None where there is none, or none that this token sees."""
    try:
        return _patiently(lambda: api.model_info(repo))
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again where the Hub is busy; for most requests the library does not."""
    for wait in WAITS:
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code not in BUSY:
                raise
            seconds = str(error.response.headers.get("Retry-After", ""))
            sleep(min(float(seconds), LONGEST_WAIT) if seconds.isdecimal() else wait)
    return ask()


@contextmanager
def _silenced(quiet: bool) -> Iterator[None]:
    """Hide the library's warnings, since its errors suffice, and its bars if `quiet` or if stderr is no terminal."""
    hidden = quiet or not sys.stderr.isatty()
    verbosity, bars = logging.get_verbosity(), hidden and not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity(ERROR)
        if bars:
            disable_progress_bars()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                enable_progress_bars()


def _refuse_adapter(target: str, names: Iterable[str]) -> None:
    """Raise OutputError where an adapter is there: transformers would load it, not the weights beside it alone."""
    if ADAPTER in names:
        raise OutputError(
            f"{target}: holds an adapter ({ADAPTER}), which transformers would load on top of these weights, or in "
            "place of them; choose another target, or remove the adapter first"
        )


# --- what fsspec knows -----------------------------------------------------------------------------------------------


def check_url(target: str, overwrite: bool) -> None:
    """Raise OutputError for a URL that cannot be written, or whose contents would be lost; OSError where it fails."""
    with _storage_errors(target):
        _look(target, overwrite)


def upload(folder: Path, target: str, overwrite: bool = False) -> str:
    """Copy the folder's files to a URL, and return it.

    A checkpoint that is replaced loses its config.json before anything else changes; weights that this folder does not
    have are removed last. Raises as `check_url`: the folder stays as it is.
    """
    with _storage_errors(target, f"; the output stays in {folder}"):
        file_system, root, before = _look(target, overwrite)
        files = {path.name: path for path in folder.iterdir() if path.is_file()}
        for name in sorted(before, key=_turn, reverse=True):
            if _turn(name)[0] >= OPENS:
                file_system.rm_file(f"{root}/{name}")
        for name in sorted(files, key=_turn):
            file_system.put_file(str(files[name]), f"{root}/{name}")
            file_system.invalidate_cache()
            size, expected = file_system.info(f"{root}/{name}")["size"], files[name].stat().st_size
            if size != expected:
                raise OSError(f"{name} has {size} bytes there, expected {expected}")
        for name in before:
            if WEIGHTS.fullmatch(name) and name not in files and _turn(name)[0] < OPENS:
                file_system.rm_file(f"{root}/{name}")
    return target


def _turn(name: str) -> tuple[int, str]:
    """The order of files: weights, all else, and from OPENS on those that a checkpoint is opened by."""
    if name == CONFIG:
        return OPENS + 1, name
    if name.endswith(INDEX):
        return OPENS, name
    return int(not name.endswith(".safetensors")), name


def _look(target: str, overwrite: bool) -> tuple[Any, str, list[str]]:
    """(file system, path in it, names of the files there). Raises OutputError, and errors of the file system."""
    scheme, _, rest = target.partition("://")
    if scheme == "hf":
        raise OutputError(f"{target}: one commit holds an output; use --push-to-hub {rest}")
    if scheme in ("http", "https"):
        raise OutputError(f"{target}: a web page cannot be written; expected a folder, s3://, gs:// ...")
    file_system, root = file_system_of(target, OutputError, "a folder, s3://, gs:// ...")
    file_system.invalidate_cache()
    try:
        entries = file_system.ls(root, detail=True)
    except FileNotFoundError:
        entries = []
    kinds = {str(entry["name"]).rstrip("/"): entry["type"] for entry in entries}
    root = root.rstrip("/")
    if kinds.pop(root, "directory") == "file":
        raise OutputError(f"{target}: exists and is no folder")
    names = [path.rpartition("/")[2] for path, kind in kinds.items() if kind == "file"]
    if kinds and not overwrite:
        raise OutputError(f"{target}: exists; --overwrite replaces it")
    _refuse_adapter(target, names)
    if kinds and not any(name == CONFIG or WEIGHTS.fullmatch(name) for name in names):
        raise OutputError(f"{target}: exists and is no checkpoint; --overwrite replaces only checkpoints")
    return file_system, root, names


# --- errors ----------------------------------------------------------------------------------------------------------


@contextmanager
def _hub_errors(repo: str, create_pr: bool, way_out: str = "") -> Iterator[None]:
    """Raise the library's errors in one line: OutputError where the request is at fault, else OSError."""
    try:
        yield
    except ModelSurgeonError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        # The error of an upload names the file, and its cause names the reason.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        kind, text = _as_ours(cause, create_pr)
        raise kind(f"{repo}: {text}{way_out}") from None


def _as_ours(error: BaseException, create_pr: bool) -> tuple[type[Exception], str]:
    """The kind of error to raise, why the Hub refuses, and the way out."""
    if isinstance(error, LocalTokenNotFoundError):
        return OutputError, f"no token to push with; set HF_TOKEN to one that writes ({_page()}), or run hf auth login"
    if isinstance(error, HfHubHTTPError):
        status, text = error.response.status_code, error.server_message or first_line(error)
        if status in BUSY:
            return OSError, f"the Hub fails ({status}), also when asked again; wait a few minutes"
        instead = "" if create_pr else "; --create-pr asks those who may"
        reasons = {
            401: f"the token is not accepted; set HF_TOKEN to one of {_page()}, or run hf auth login",
            403: f"this token may not write here ({text}){instead}",
            412: "has changed since the upload began, by others or by a try that seemed to fail",
        }
        return OutputError, reasons.get(status, f"{status}: {text}")
    if isinstance(error, HTTPError):
        return OSError, f"the Hub cannot be reached at {constants.ENDPOINT} ({first_line(error)})"
    if isinstance(error, json.JSONDecodeError):
        return OSError, f"{constants.ENDPOINT} does not answer as a Hub; is HF_ENDPOINT right?"
    if isinstance(error, ValueError):
        return OutputError, " ".join(str(error).split())
    return OSError, first_line(error)


@contextmanager
def _storage_errors(target: str, way_out: str = "") -> Iterator[None]:
    """Raise a file system's errors in one line: OutputError where the request is at fault, else OSError."""
    try:
        yield
    except ModelSurgeonError as error:
        raise type(error)(f"{error}{way_out}") from None
    except (FileNotFoundError, PermissionError) as error:
        raise OutputError(f"{target}: no access, or no such place ({first_line(error)}){way_out}") from None
    except Exception as error:  # each package behind fsspec has errors of its own
        raise OSError(f"{target}: cannot be written ({first_line(error)}){way_out}") from None


def _page() -> str:
    return f"{constants.ENDPOINT}/settings/tokens"
