"""What front ends do that nobody expects, what is done about it, and which tests show that.

A test is ``file::function`` below tests/, or the name of a column of the table.
"""

SURPRISES = [
    (
        "nginx (before February 2026) sends a false length with `scgi_request_buffering off`",
        "the file says `on`; a length that contradicts the client's is a 400, never a cut upload",
        ["test_nginx_that_does_not_buffer_scgi_uploads"],
    ),
    (
        "HAProxy 2.6 makes a 302 of every answer with Location after Status",
        "Status is the last line of a head",
        ["redirects"],
    ),
    (
        "HAProxy answers 502 to a body on HEAD and 304, and to more bytes than announced",
        "there is never one; what is too long is cut off",
        [
            "HEAD 204 304",
            "test_an_application_that_breaks_its_content_length_is_logged_in_one_line",
        ],
    ),
    (
        "a kept TCP connection without TCP_NODELAY costs 44 ms a request",
        "it is set",
        [
            "test_one_connection_many_requests",
            "test_kept_connections_wait_for_no_acknowledgement",
        ],
    ),
    (
        "nginx's `scgi_params` have neither SCRIPT_NAME nor PATH_INFO",
        "both are made of what there is",
        ["path", "test_stock_configuration_at_the_root"],
    ),
    (
        "Debian's nginx sends `$host` as HTTP_HOST: absolute URLs lose the port",
        "the files send the port, and never a host that contradicts the request line",
        ["headers", "test_absolute_target_of_another_host"],
    ),
    (
        "Apache over FastCGI, SCGI: 400 for `%25` with `NoDecode`, 403 for a query with `nocanon`",
        "the files say `On`; `NoDecode` and `nocanon` belong to HTTP",
        ["path", "query"],
    ),
    (
        "Apache `SetHandler` and lighttpd at `/` take the first folder of the path for SCRIPT_NAME",
        "the files say `ProxyPass`, `fix-root-scriptname`; `--script-name /` repairs it elsewhere",
        ["path", "test_a_bogus_split_is_trusted_unless_script_name_says_otherwise"],
    ),
    (
        "nginx holds an answer back unless the connection is kept or the answer says otherwise",
        "the files keep connections; an answer that says `X-Accel-Buffering: no` streams elsewhere",
        ["streaming"],
    ),
    (
        "Caddy sends CONTENT_LENGTH `-1`, and calls a body without a type a form",
        "`-1` is an unknown length; the files set another type",
        ["chunked", "test_a_body_without_a_type"],
    ),
    (
        "HAProxy numbers FastCGI requests 1, 3, 5, … and sends several at once, when told it may",
        "they are answered as they finish, up to `fastcgi_multiplex_max`",
        ["test_requests_share_a_connection", "test_haproxy.py::test_reload_loses_no_request"],
    ),
    (
        "HAProxy's SERVER_NAME is the Host field with its port",
        "the port is cut off",
        ["test_server_name_has_no_port", "test_same_environ"],
    ),
    (
        "Apache with `enablereuse=on` keeps a connection for each of its threads",
        "an idle connection holds no thread",
        [
            "test_apache_that_keeps_a_connection_for_each_of_its_threads",
            "test_a_thousand_idle_connections_and_eight_busy_clients",
        ],
    ),
    (
        "lighttpd encodes the query anew, and loses what stands before a second `?`",
        "the files switch `url-normalize` off",
        ["query"],
    ),
    (
        "lighttpd drops empty fields, and makes one variable of X-User, X_User and X.User",
        "all values are kept, so that none replaces another unseen",
        ["test_a_field_that_looks_like_another"],
    ),
    (
        "nginx's stock includes send a REMOTE_USER whom nobody has checked, HAProxy too",
        "the files empty it",
        ["headers", "test_a_user_whom_nobody_has_checked_is_no_user"],
    ),
    (
        "nginx and Caddy pass on `Proxy:`, which looks like the variable HTTP_PROXY",
        "it is dropped, by the files and by the gateway",
        ["headers"],
    ),
    (
        "mod_proxy_scgi makes a new request of 200 with a local Location",
        "the files say `ProxySCGIInternalRedirect Off`",
        ["redirects"],
    ),
    (
        "Apache drops Content-Length from SCGI and CGI answers: a cut one looks whole",
        "the files say `ap_trust_cgilike_cl`",
        ["cut answer"],
    ),
    (
        "mod_fcgid answers 500 to bodies above 128 kB",
        "the files raise `FcgidMaxRequestLen`",
        ["20 MB up"],
    ),
    (
        "Apache and lighttpd send TERM to a CGI program that still runs when its answer is out",
        "it finishes; before that, TERM means that the client has gone",
        [
            "test_term_after_the_end_of_the_answer",
            "test_term_before_the_end_of_the_answer",
        ],
    ),
]
