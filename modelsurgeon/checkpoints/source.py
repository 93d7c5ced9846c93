"""Where a SOURCE is: a folder, a Hub id, a URL, the bundled checkpoint.

    demo                     comes with modelsurgeon
    some/folder              a folder, before anything else of that name; file:///some/folder as well
    org/name                 a repository of the Hub; org/name@revision, hf://org/name
    s3://bucket/folder ...   whatever fsspec knows

Over a network config.json is read first, so that a model type without a table costs no more than that.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from modelsurgeon.architectures import registry
from modelsurgeon.checkpoints.record import Origin
from modelsurgeon.checkpoints.weight_files import config_file, without_paths
from modelsurgeon.errors import SourceError
from modelsurgeon.files.file import NAME_MAX, LocalFile, LocalFolder
from modelsurgeon.files.hub import open_repository
from modelsurgeon.files.json_file import OF_CONFIGS, read_json
from modelsurgeon.files.remote import open_remote

DEMO = Path(__file__).parents[1] / "demo"
HUB_ID = re.compile(r"(?:hf://)?(?P<repo>\w[\w.-]*/[\w.-]+)(?:@(?P<revision>.+))?")


def locate(source: str | Path, revision: str | None = None, *, stream: bool = False, weights: bool = True) -> Origin:
    """The folder that holds SOURCE; nothing is downloaded. Raises SourceError where there is none.

    stream   never store what is read of a Hub id; other sources are never stored
    weights  whether more than config.json is needed: behind a network, only model types with a table are then read
    """
    text, folder = str(source), Path(source)
    _check_name(text)
    if folder.is_dir():
        origin = Origin(str(folder), LocalFolder(folder))
    elif folder.exists():
        raise SourceError(f"{text}: a file; expected a folder that holds config.json and safetensors")
    elif text == "demo":
        origin = Origin("demo", LocalFolder(DEMO))
    elif hub := HUB_ID.fullmatch(text):
        if hub["revision"] and revision:
            raise SourceError(f"{text} and --revision {revision}: two revisions; give one")
        repository = open_repository(hub["repo"], hub["revision"] or revision, stream=stream)
        origin = Origin(hub["repo"], repository, repository.commit)
    elif text.startswith("file://"):
        origin = locate(text.removeprefix("file://"))
    elif text.startswith(("http://", "https://")):
        raise SourceError(f"{text}: a web page; of a repository of the Hub give org/name alone")
    elif "://" in text:
        origin = Origin(text, open_remote(text))
    else:
        raise SourceError(f"{text}: no such folder, and not a Hub id (org/name)")
    if revision and not origin.revision:
        raise SourceError(f"--revision {revision} is for Hub ids; {text} is none")
    if weights and origin.folder.is_far:
        registry.find(read_json(config_file(origin.folder), OF_CONFIGS).get("model_type"))
    return origin


def read_config_of(source: str | Path) -> dict[str, Any]:
    """The config of a config.json, or of a SOURCE, of which only that file is read. Raises SourceError without one."""
    text, path = str(source), Path(source)
    _check_name(text)
    if path.is_file():
        return without_paths(path, read_json(LocalFile(path), OF_CONFIGS))
    if not (path.is_dir() or text == "demo" or HUB_ID.fullmatch(text) or "://" in text):
        raise SourceError(f"{text}: no such config.json, no such folder, and not a Hub id (org/name)")
    file = config_file(locate(text, weights=False).folder)
    return without_paths(file, read_json(file, OF_CONFIGS))


def _check_name(source: str) -> None:
    if not source:
        raise SourceError("an empty SOURCE; expected a folder, a Hub id (org/name) or demo")
    if any(len(os.fsencode(part)) > NAME_MAX for part in Path(source).parts):
        raise SourceError(f"{source[:60]}...: longer than a file's name can be; expected a folder, a Hub id or demo")
