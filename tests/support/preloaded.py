"""The command line without the seconds that torch and transformers take to import: a server forks for each command.

    command = write_command(folder)  # an executable, for scripts of bash

hands the server its arguments, folder, environment and three streams, and ends as the fork ends. The fork is a process
of its own, which only skips the imports. Tests of start-up and of imports (test_cli.py) do not use this.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
STREAMS = (0, 1, 2)
LOST = 98  # the code of a command whose server is gone
CLIENT = f"""
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect("\\0" + sys.argv[1])
    socket.send_fds(server, [b"-"], {STREAMS})
    server.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    for stream in {STREAMS}:
        os.close(stream)  # the run alone holds them: a pipe ends when it does
    os._exit(int(server.recv(16) or {LOST}))
"""


def write_command(folder: Path) -> Path:
    """Write `modelsurgeon`, an executable, into a folder."""
    (folder / "client.py").write_text(CLIENT)
    command = folder / "modelsurgeon"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{folder / "client.py"}" {_server()} "$@"\n')
    command.chmod(0o755)
    return command


@cache
def _server() -> str:
    """The address of a server, which ends with this process."""
    address = f"modelsurgeon-tests-{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    atexit.register(process.communicate)  # closes its stdin
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return address


def _serve(address: str) -> None:
    """Fork for each connection until stdin ends. Returns in those forks alone, as processes that are to run `main`."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{address}")
        listening.listen()
        os.write(1, b"ready\n")
        answering: list[int] = []
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            with connection:
                answering.append(os.fork())
                if not answering[-1]:
                    return _answer(connection)
    for child in answering:
        os.waitpid(child, 0)
    os._exit(0)


def _answer(connection: socket.socket) -> None:
    """Take over what a client sent, in a fork that returns; say how that ended, and end."""
    _, streams, _, _ = socket.recv_fds(connection, 1, len(STREAMS))
    arguments, folder, environment = json.load(connection.makefile())
    if child := os.fork():
        for stream in (*STREAMS, *streams):
            os.close(stream)
        connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    for number, stream in zip(STREAMS, streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["modelsurgeon", *arguments]


def _end(main: Callable[[], None]) -> NoReturn:
    """Run the command and end as an interpreter does, but free nothing: that would take half a second."""
    code: object = LOST
    try:
        main()
    except SystemExit as end:
        code = end.code
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    import rich.console
    import torch
    import transformers

    from modelsurgeon.__main__ import main

    gc.freeze()  # so that the collector makes forks copy no page
    preloaded = (rich.console, torch, transformers.AutoModelForCausalLM, transformers.LlamaForCausalLM)
    _serve(sys.argv[1])
    _end(main)
