"""The processes that a process has started, and where they listen (Linux)."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

REPLICA = "ray::ServeReplica:sqs:Replica"


def descendants(ancestor: int) -> dict[int, str]:
    """The command lines of all processes below one, by process id."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            commands[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: commands[pid] for pid in found - {ancestor} if pid in commands}


def replicas(ancestor: int | None = None) -> set[int]:
    """The replicas below a process, by default this one."""
    below = descendants(os.getpid() if ancestor is None else ancestor)
    return {pid for pid, command in below.items() if command.startswith(REPLICA)}


def listeners(pids: set[int]) -> list[tuple[int, str, int]]:
    """Process id, address in hexadecimal and port of all that listen by TCP."""
    inodes = {}
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(file)
            except OSError:
                continue
            if match := re.fullmatch(r"socket:\[(\d+)\]", target):
                inodes[match[1]] = pid
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            address, port = local.split(":")
            if state == "0A" and rest[5] in inodes:
                found.append((inodes[rest[5]], address, int(port, 16)))
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 180) -> float:
    """Wait for what other processes do; return the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds
        time.sleep(0.05)
    return time.monotonic() - began
