"""The smallest application that shows what it was asked: gateway examples/hello.py"""

import json


def application(environ, start_response):
    """Answer with the request's environ as JSON; values that JSON has no type for as text."""
    shown = dict(sorted(environ.items()))
    body = json.dumps(shown, indent=1, default=lambda value: f"<{type(value).__name__}>").encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body + b"\n"]
