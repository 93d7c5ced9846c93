"""Small files that a crash leaves whole or absent, and what else must be on the disk before it is relied on."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from uuid import uuid4

TEMPORARY = ".tmp"  # ends the names of files that nobody relies on yet
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # some file systems cannot sync a folder


def create(path: Path, text: str) -> bool:
    """Create the file, content and all, unless it exists; whether this call did.

    Of all that try, on all machines that share the file system, one does. Source: open(2), O_EXCL.
    """
    temporary = path.with_name(uuid4().hex + TEMPORARY)
    try:
        temporary.write_text(text, encoding="ascii")
        sync(temporary)
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink == 2  # NFS: it was done, and the answer was lost
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_slowly(path, text)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create_slowly(path: Path, text: str) -> bool:
    """The same where there are no links: until it is written, the file is there and says nothing."""
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        return False
    sync(path)
    return True


def replace(path: Path, text: str) -> None:
    """Write the file, in the place of one that may be there."""
    temporary = path.with_name(path.name + TEMPORARY)
    temporary.write_text(text, encoding="ascii")
    sync(temporary)
    os.rename(temporary, path)
    sync(path.parent)


def append(path: Path, line: str) -> None:
    """Write one more line; one that was torn by a crash stays, and readers pass it over."""
    with open(path, "a", encoding="ascii") as file:
        file.write(line + "\n")
    sync(path)


def read(path: Path) -> str | None:
    """What stands in the file; None where there is none. Raises OSError where that cannot be told."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove(path: Path) -> None:
    """Remove a file, or a folder and all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the file, or the names in the folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
