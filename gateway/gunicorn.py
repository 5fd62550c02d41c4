"""What of a gunicorn configuration file means something else here, or nothing."""

from __future__ import annotations

from typing import Any

_TLS = "TLS 1.2 and 1.3 are spoken; certfile, keyfile, ca_certs, cert_reqs and ciphers are used"
_LOGS = "not supported: errorlog, loglevel, accesslog and access_log_format say what is logged"
_PROXY = "forwarded_headers says which fields a trusted proxy sets"
_STRICT = "requests are read strictly"
_STATS = "not supported"
_ASGI = "ASGI is not supported"
_DIRTY = "not supported"

#: Its other words for versions of the PROXY protocol.
_PROXY_PROTOCOL = {"true": "auto", "1": "auto", "false": "off", "0": "off", "none": "off"}

#: gunicorn's settings that there are not here, and why none is missed.
NOT_USED: dict[str, str] = {
    "worker_class": "threads decides how a worker works",
    "worker_tmp_dir": "not needed: workers report through shared memory",
    "daemon": "gateway stays in the foreground; the service manager does the rest",
    "reload": "not supported: HUP or `gateway reload` reloads",
    "reload_engine": "not supported",
    "reload_extra_files": "not supported",
    "spew": "not supported",
    "check_config": "--check-config does it",
    "print_config": "--print-config does it",
    "config": "-c says it",
    "sendfile": "files of wsgi.file_wrapper are always sent by the kernel",
    "reuse_port": "not needed: all workers share one socket",
    "initgroups": "always done for a user that has a name",
    "tmp_upload_dir": "body_spool_dir says it",
    "secure_scheme_headers": _PROXY,
    "forwarder_headers": _PROXY,
    "uwsgi_allow_ips": "allow_from says it",
    "capture_output": "not supported: what the application prints goes where gateway's does",
    "enable_stdio_inheritance": "not needed: standard input and output are inherited",
    "disable_redirect_access_to_syslog": _LOGS,
    "logger_class": _LOGS,
    "logconfig": _LOGS,
    "logconfig_dict": _LOGS,
    "logconfig_json": _LOGS,
    "syslog": _LOGS,
    "syslog_addr": _LOGS,
    "syslog_prefix": _LOGS,
    "syslog_facility": _LOGS,
    "statsd_host": _STATS,
    "statsd_prefix": _STATS,
    "dogstatsd_tags": _STATS,
    "enable_backlog_metric": _STATS,
    "paste": "not supported: wsgi_app names a factory",
    "raw_paste_global_conf": "not supported",
    "root_path": "script_name says it",
    "ssl_version": _TLS,
    "ssl_context": _TLS,
    "suppress_ragged_eofs": "not needed: a request that was cut is none, however it was cut",
    "do_handshake_on_connect": "not needed: a handshake holds nobody up",
    "http_protocols": "HTTP/1.1 is what is served",
    "http2_cleartext": "not supported",
    "http2_max_concurrent_streams": "not supported",
    "http2_initial_window_size": "not supported",
    "http2_max_frame_size": "not supported",
    "http2_max_header_list_size": "not supported",
    "http_parser": "there is one",
    "permit_obsolete_folding": _STRICT,
    "permit_unconventional_http_method": _STRICT,
    "permit_unconventional_http_version": _STRICT,
    "strip_header_spaces": _STRICT,
    "casefold_http_method": _STRICT,
    "asgi_loop": _ASGI,
    "asgi_lifespan": _ASGI,
    "asgi_disconnect_grace_period": _ASGI,
    "websocket_max_message_size": _ASGI,
    "control_socket_mode": "0600, always",
    "control_socket_disable": "there is none without pidfile and control_socket",
    "dirty_apps": _DIRTY,
    "dirty_workers": _DIRTY,
    "dirty_timeout": _DIRTY,
    "dirty_threads": _DIRTY,
    "dirty_graceful_timeout": _DIRTY,
    "on_dirty_starting": _DIRTY,
    "dirty_post_fork": _DIRTY,
    "dirty_worker_init": _DIRTY,
    "dirty_worker_exit": _DIRTY,
    "worker_int": "this hook is not called",
    "worker_abort": "this hook is not called",
}


def translate(values: dict[str, Any], rest: dict[str, Any]) -> None:
    """Change ``values`` of settings to what they mean here, taking names out of ``rest``."""
    title = rest.pop("default_proc_name", None)
    if title:
        values.setdefault("proc_name", title)
    proxied = values.get("proxy_protocol")
    if isinstance(proxied, bool | str):
        values["proxy_protocol"] = _PROXY_PROTOCOL.get(str(proxied).lower(), proxied)
