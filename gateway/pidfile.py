"""The pidfile: written, moved on and removed by whom it names."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.sockets import BindError

#: What is added to the name while another manager, which is being replaced, still has it.
SUFFIX = ".2"


class Pidfile:
    """A file with the manager's process id."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # whatever chdir follows

    def write(self) -> None:
        """Write the process id; refuse to replace that of a running process.

        Raises BindError.
        """
        try:
            text = Path(self.path).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            text = ""
        except OSError as error:
            raise BindError(f"cannot read the pidfile {self.path}: {_reason(error)}") from None
        if text.isdigit() and int(text) not in (0, os.getpid()) and is_alive(int(text)):
            raise BindError(f"the pidfile {self.path} belongs to running process {text}")
        try:
            Path(self.path).write_text(f"{os.getpid()}\n", encoding="ascii")
        except OSError as error:
            raise BindError(f"cannot write the pidfile {self.path}: {_reason(error)}") from None

    def move(self, path: str) -> None:
        """Take another name.  Raises OSError."""
        os.rename(self.path, path)
        self.path = path

    def remove(self) -> None:
        """Remove it if it is ours; what somebody else wrote there meanwhile stays."""
        try:
            text = Path(self.path).read_text(encoding="ascii", errors="replace")
            if text.strip() == str(os.getpid()):
                os.unlink(self.path)
        except OSError:
            pass  # somebody removed it before: what was wanted


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
