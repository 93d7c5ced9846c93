"""Small files that a crash leaves whole or absent, and syncing other files before anything relies on them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from uuid import uuid4

TEMPORARY = ".tmp"  # suffix of files that are not complete yet
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # some file systems cannot link files
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # some file systems cannot sync a folder


def create(path: Path, text: str) -> bool:
    """Create the file with its content, unless it exists; returns whether this call did.

    Of all processes that try, on all machines that share the file system, one succeeds. Source: open(2), O_EXCL.
    """
    temporary = path.with_name(uuid4().hex + TEMPORARY)
    try:
        temporary.write_text(text, encoding="ascii")
        sync(temporary)
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink == 2  # NFS: the link was made, and the answer was lost
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_slowly(path, text)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create_slowly(path: Path, text: str) -> bool:
    """`create` on file systems without links: for a moment the file exists and is empty."""
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        return False
    sync(path)
    return True


def replace(path: Path, text: str) -> None:
    """Write the file, replacing any that exists."""
    temporary = path.with_name(path.name + TEMPORARY)
    temporary.write_text(text, encoding="ascii")
    sync(temporary)
    os.rename(temporary, path)
    sync(path.parent)


def append(path: Path, line: str) -> None:
    """Append a line. A crash may leave half of one, which readers skip."""
    with open(path, "a", encoding="ascii") as file:
        file.write(line + "\n")
    sync(path)


def read(path: Path) -> str | None:
    """The text of the file; None where there is none. Raises OSError where it cannot be read."""
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
    """Write the file, or the names in the folder, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
