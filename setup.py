"""What pyproject.toml cannot say: the hot path is compiled where that is possible.

The modules named here are ordinary Python, which mypyc turns into C; the same
files run without it.  ``GATEWAY_PURE=1`` builds nothing.
"""

import os
import sys

from setuptools import Extension, setup

#: All of them or none: a compiled class refers to the others' memory.
MODULES = """
protocols/model.py
protocols/headers.py
protocols/http1_head.py
protocols/http1_memory.py
protocols/http1_answer.py
protocols/http1_bodies.py
protocols/http1.py
protocols/cgi.py
protocols/single.py
protocols/scgi.py
protocols/uwsgi.py
protocols/fastcgi_records.py
protocols/fastcgi_stream.py
protocols/fastcgi_replies.py
protocols/fastcgi.py
gateway/environ.py
gateway/linux.py
gateway/serving.py
gateway/scoreboard.py
gateway/output.py
gateway/carrier.py
gateway/channel.py
gateway/receiving.py
gateway/connection.py
gateway/answer.py
gateway/wsgi.py
gateway/deadlines.py
gateway/service.py
gateway/crowd.py
gateway/shortage.py
gateway/acceptor.py
gateway/worker.py
""".split()

#: What is imported there is looked at, but neither compiled nor judged.  Without the
#: project's own strictness: where the build runs, dependencies are not there to be looked at.
OPTIONS = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]


def extensions() -> list[Extension]:
    """What to build; none of it has to succeed."""
    if os.environ.get("GATEWAY_PURE", "") not in ("", "0"):
        return []
    found = [Extension("protocols._speed", ["protocols/_speed.c"], depends=["protocols/_pairs.h"])]
    if sys.platform.startswith("linux"):
        found.append(Extension("gateway._sockets", ["gateway/_sockets.c"]))
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 - not there, perhaps

        found += mypycify([*OPTIONS, *MODULES], opt_level="2", group_name="protocols.compiled")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - Python runs without it
        sys.stderr.write(f"gateway: built without its compiled hot path: {error!r}\n")
    for extension in found:
        extension.optional = True
    return found


# Built anew each time: see protocols/builds.py on what is older than its sources.
setup(ext_modules=extensions(), options={"build_ext": {"force": True}})
