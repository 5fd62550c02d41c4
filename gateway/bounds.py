"""What one peer may take of the server: time, bytes, memory.

The part of the settings that protects a worker from slow and greedy clients;
see docs/decisions/0014-slow-and-greedy-clients.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import kinds
from gateway.kinds import setting


@dataclass(frozen=True)
class Bounds:
    """Bounds on what clients hold; see ``help`` of each field for its meaning and unit."""

    keepalive: float = setting(
        75.0,
        kinds.seconds(off=True),
        "Seconds that an idle HTTP connection is kept; 0: every answer is the last one of its "
        "connection.",
        value="SECONDS",
    )
    fastcgi_keepalive: float = setting(
        75.0,
        kinds.seconds(off=True),
        "Seconds that an idle FastCGI connection is kept; 0: a connection is closed after its "
        "request.",
        value="SECONDS",
    )
    client_header_timeout: float = setting(
        15.0, kinds.seconds(), "Seconds for a whole request head.", value="SECONDS"
    )
    client_body_timeout: float = setting(
        30.0, kinds.seconds(), "Seconds between two reads of a request body.", value="SECONDS"
    )
    client_body_min_rate: int = setting(
        500,
        kinds.whole_number(0),
        "Bytes a second that a request body must bring, on average over client_body_timeout; "
        "0: any.",
        value="BYTES",
    )
    send_timeout: float = setting(
        60.0,
        kinds.seconds(),
        "Seconds in which a client must take some of the answer.",
        value="SECONDS",
    )
    send_min_rate: int = setting(
        500,
        kinds.whole_number(0),
        "Bytes a second that a client must take of an answer that waits for it, on average over "
        "send_timeout; 0: any.",
        value="BYTES",
    )
    limit_conn: int = setting(
        0,
        kinds.whole_number(0),
        "Connections over HTTP that one client address may have with a worker; 0: any number. "
        "Addresses of forwarded_allow_ips and peers on unix sockets are not counted.",
        value="N",
    )
    limit_request_line: int = setting(
        8190,
        kinds.whole_number(16, off=True),
        "Bytes of an HTTP request line; 0: limit_request_header_total bounds it.",
        value="BYTES",
    )
    limit_request_fields: int = setting(
        100,
        kinds.whole_number(1, off=True),
        "Header fields of an HTTP request; 0: limit_request_header_total bounds them.",
        value="N",
    )
    limit_request_field_size: int = setting(
        8190,
        kinds.whole_number(16, off=True),
        "Bytes of one HTTP header field; 0: limit_request_header_total bounds it.",
        value="BYTES",
    )
    limit_request_header_total: int = setting(
        65536,
        kinds.whole_number(64),
        "Bytes of a whole HTTP head, of the FastCGI parameters, of the SCGI headers or of the "
        "uwsgi variables.",
        value="BYTES",
    )
    limit_request_body: int = setting(
        1 << 30, kinds.whole_number(0), "Bytes of a request body; 0: no limit.", value="BYTES"
    )
    body_buffer_size: int = setting(
        1 << 20,
        kinds.whole_number(0),
        "Bytes of a body, of a request or an answer that waits for its reader, that are kept in "
        "memory; more goes to a temporary file.",
        value="BYTES",
    )
    body_spool_dir: str | None = setting(
        None, kinds.text(), "Folder of those temporary files; not set: the system's.", value="DIR"
    )
    worker_buffer_size: int = setting(
        64 << 20,
        kinds.whole_number(0),
        "Bytes of bodies and answers that a worker keeps in memory for all its clients together; "
        "more goes to temporary files.",
        value="BYTES",
    )
    worker_spool_size: int = setting(
        4 << 30,
        kinds.whole_number(0),
        "Bytes of temporary files that a worker has for all its clients together; 0: as many as "
        "the disk takes. Beyond, it is as if the disk were full: bodies are refused with a 507, "
        "and answers stay in memory, up to 64 MiB.",
        value="BYTES",
    )
    response_buffer_size: int = setting(
        16 << 20,
        kinds.whole_number(0),
        "Bytes of an answer that wait for a slow client before the application waits too.",
        value="BYTES",
    )
