"""Processes: started on a core, measured over their whole tree, stopped by pid."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 20
_CORES = sorted(os.sched_getaffinity(0))

#: The measured server has a core to itself; the load and nginx share the others.
SERVER_CORES = _CORES[:1]
LOAD_CORES = _CORES[1:] or _CORES


@contextmanager
def on_cores(cores):
    """What is started inside inherits these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(command, cores, ready, folder, environ=None, cwd=ROOT):
    """A process from when ``ready()`` is true to the end of the block; its log is in ``folder``."""
    log = Path(folder) / "log"
    with log.open("ab") as out, on_cores(cores):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env=os.environ | (environ or {}),
            umask=0,  # a front end's workers may be another user
        )
    try:
        _wait(process, ready, log)
        yield process.pid
    finally:
        stop(process)


def _wait(process, ready, log):
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.args} does not start:\n{tail}")
        time.sleep(0.01)


def stop(process):
    """End the process and its tree, pid by pid: what it did is measured, how it leaves is not."""
    everyone = tree(process.pid)
    process.kill()
    for pid, born in everyone.items():
        if _born(pid) == born:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def connects(address):
    """A readiness check: somebody listens at a (host, port) or a path."""

    def check():
        try:
            connect(address).close()
        except OSError:
            return False
        return True

    return check


def connect(address):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def free_port():
    """Not one of those that connections are given, nor of those that others ask the kernel for."""
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def _stat(pid):
    """Fields of /proc/PID/stat after the name: state is 0, ppid 1, utime 11, starttime 19."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _born(pid):
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def tree(root):
    """The process and all its descendants: pid to start time."""
    children = {}
    born = {}
    for name in os.listdir("/proc"):
        fields = _stat(name) if name.isdigit() else None
        if fields:
            children.setdefault(int(fields[1]), []).append(int(name))
            born[int(name)] = fields[19]
    found = {}
    queue = [root]
    while queue:
        pid = queue.pop()
        if pid in born:
            found[pid] = born[pid]
        queue += children.get(pid, [])
    return found


def task_seconds(root):
    """Run time of each thread of the tree, (pid, thread) to seconds, exact to the nanosecond."""
    found = {}
    for pid in tree(root):
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
                found[pid, int(task)] = int(text.split()[0]) / 1e9
    return found


def used(before, after):
    """Seconds between two ``task_seconds``, or None: a thread that has left took its time along."""
    if before.keys() - after.keys():
        return None
    return sum(after.values()) - sum(before.values())


class Meter:
    """What the tree of ``root`` spends from here on.

    Threads that end are not in their process's ``schedstat`` any more; then the
    coarse clock counts.
    """

    def __init__(self, root):
        self._root = root
        self._tasks = task_seconds(root)
        self._ticks = cpu_seconds(root)

    def seconds(self):
        exact = used(self._tasks, task_seconds(self._root))
        return cpu_seconds(self._root) - self._ticks if exact is None else exact


def cpu_seconds(root):
    """User and system time of the tree, with threads and children that ended.

    The kernel scales the two so that their sum is the scheduler's exact run
    time; only the unit, 10 ms, is coarse.
    """
    total = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            total += sum(map(int, fields[11:15]))
    return total / _TICKS


def machine_seconds():
    """Busy time of all cores: user, nice, system, interrupts, steal (proc(5))."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


def memory_bytes(root):
    """Proportional set size of the tree."""
    return sum(memory_by_process(root).values())


def memory_by_process(root):
    """Pid to proportional set size (RSS where the kernel has no roll-up), in bytes."""
    found = {}
    for pid in tree(root):
        with suppress(FileNotFoundError, ProcessLookupError):
            try:
                lines, key = Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss:"
            except (PermissionError, FileNotFoundError):
                lines, key = Path(f"/proc/{pid}/status").read_text(), "VmRSS:"
            kilobytes = next(int(x.split()[1]) for x in lines.splitlines() if x.startswith(key))
            found[pid] = kilobytes * 1024
    return found


def allow_descriptors(count):
    """Raise the soft limit of open files, for this process and what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def python(module, *arguments):
    return [sys.executable, "-m", module, *map(str, arguments)]
