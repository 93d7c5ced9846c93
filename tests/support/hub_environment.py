"""Make `huggingface_hub`, here or in a new process, use the Hub on loopback and no other."""

from __future__ import annotations

import contextlib
import os
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download, hf_api, hf_file_system
from huggingface_hub.utils import _cache_manager, _detect_agent, _git_credential, _http

from support.hub_server import HubServer


def environment(hub: HubServer, cache: Path, token: str | None = None) -> dict[str, str]:
    """Variables that make a new process use this Hub and no other; its home is beside the cache."""
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
    """Make `huggingface_hub` in this process use this Hub and no other; yields the waits (s) that it skipped."""
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
            late = [name for name, value in settings.items() if getattr(constants, name) != value]
            late += [name for name, value in variables.items() if os.environ.get(name) != value]
            assert not late, f"{late}: patched under the Hub and not put back before it ends"


def forget() -> None:
    """Drop what the library remembers between calls: its client, its file systems."""
    huggingface_hub.close_session()
    hf_file_system.HfFileSystem.clear_instance_cache()
    hf_file_system.hffs.invalidate_cache()
