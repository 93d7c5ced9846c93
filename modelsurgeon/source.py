"""Where a SOURCE is: a folder, a Hub id, the bundled checkpoint.

A folder is looked for first; then `demo`; then `org/name` through huggingface_hub, with its cache, HF_TOKEN and
HF_HUB_OFFLINE. Of a Hub repository config.json comes first, so that a model type without a table costs no download.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelsurgeon import architecture
from modelsurgeon.errors import SourceError
from modelsurgeon.files import LocalFile, LocalFolder
from modelsurgeon.history import Origin
from modelsurgeon.json_file import read_json

DEMO = Path(__file__).parent / "demo"
PATTERNS = "*.safetensors *.json *.txt *.model *.spm *.tiktoken *.jinja *.md LICEN[CS]E* NOTICE* USE_POLICY*".split()
SUBFOLDERS = "*/*"  # other formats of the same weights, for the most part: never read, never downloaded
NAME_MAX = 255  # bytes of a name in a path
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate(source: str | Path, revision: str | None = None, *, weights: bool = True) -> Origin:
    """The folder that holds SOURCE, downloaded if need be. Raises SourceError when there is none.

    weights  of a Hub id: whether more than config.json is wanted, which takes a model type that has a table
    """
    text = str(source)
    if not text:
        raise SourceError("an empty SOURCE; expected a folder, a Hub id (org/name) or demo")
    folder = Path(source)
    _check_length(folder)
    if folder.is_dir():
        if revision:
            raise SourceError(f"--revision {revision} is for Hub ids; {text} is a folder")
        return Origin(str(folder), LocalFolder(folder))
    if folder.exists():
        raise SourceError(f"{text}: a file; expected a folder that holds config.json and safetensors")
    if text == "demo":
        if revision:
            raise SourceError(f"--revision {revision} is for Hub ids; demo comes with modelsurgeon")
        return Origin("demo", LocalFolder(DEMO))
    if HUB_ID.fullmatch(text) and not text.startswith("."):
        return _from_hub(text, revision, weights)
    raise SourceError(f"{text}: no such folder, and not a Hub id (org/name)")


def read_config_of(source: str | Path) -> dict[str, Any]:
    """The config of a config.json, of a folder that holds one, of `demo` or of a Hub id: of that, this file alone.

    Raises SourceError when there is none.
    """
    text, path = str(source), Path(source)
    _check_length(path)
    if path.is_file():
        return read_json(LocalFile(path))
    if not (path.is_dir() or text == "demo" or HUB_ID.fullmatch(text)):
        raise SourceError(f"{text}: no such config.json, no such folder, and not a Hub id (org/name)")
    return read_json(locate(text, weights=False).folder.file("config.json"))


def _check_length(path: Path) -> None:
    if any(len(os.fsencode(part)) > NAME_MAX for part in path.parts):
        raise SourceError(f"{str(path)[:60]}...: longer than a file's name can be; expected a folder, a Hub id or demo")


def _from_hub(repo: str, revision: str | None, weights: bool) -> Origin:
    from huggingface_hub import hf_hub_download, snapshot_download

    with _hub_errors(repo, revision):
        config = Path(hf_hub_download(repo, "config.json", revision=revision))
        commit = config.parent.name
        if not weights:
            return Origin(repo, LocalFolder(config.parent), commit)
        architecture.find(read_json(LocalFile(config)).get("model_type"))
        folder = Path(snapshot_download(repo, revision=commit, allow_patterns=PATTERNS, ignore_patterns=SUBFOLDERS))
    return Origin(repo, LocalFolder(folder), commit)


@contextmanager
def _hub_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """What the Hub's library raises, as SourceError."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise SourceError(f"{repo}: gated; accept its terms on the Hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise SourceError(f"{repo}: no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise SourceError(
            f"{repo}: no such folder, and no such repository on the Hub (or HF_TOKEN has no access)"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        at = f" at revision {revision!r}" if revision else ""
        raise SourceError(
            f"{repo}: no such folder, not in the Hub's cache{at}, and the Hub cannot be reached"
        ) from None
    except EntryNotFoundError:
        raise SourceError(f"{repo}: the repository has no config.json") from None
    except (HFValidationError, HfHubHTTPError, ValueError) as error:
        raise SourceError(f"{repo}: {str(error).splitlines()[0]}") from None
