"""The hooks of each request; a worker without them pays nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.hooks import RequestView, ResponseView
from gateway.interrupts import RequestTimeout

if TYPE_CHECKING:
    from gateway.serving import Serving
    from gateway.wsgi import Exchange


def install(worker: Serving) -> None:
    """Put ``pre_request`` before the application and ``post_request`` behind the answer."""
    before = worker.hooks.get("pre_request")
    after = worker.hooks.get("post_request")
    if before is None and after is None:
        return
    application = worker.application
    log_access = worker.after_request
    view = worker.view

    def with_hooks(environ: dict[str, Any], start_response: Any) -> Any:
        exchange: Exchange = start_response.__self__
        exchange.view = request = RequestView(environ)
        if before is not None:
            before(view, request)
        return application(environ, start_response)

    def finish(exchange: Exchange, took: float) -> None:
        if log_access is not None:
            log_access(exchange, took)
        exchange.logged = True
        request = getattr(exchange, "view", None)
        if request is None or after is None:
            return  # it did not get as far as the application
        response = ResponseView(exchange.status or "", exchange.headers, exchange.sent)
        try:
            exchange.in_application(after, view, request, exchange.request.environ, response)
        except RequestTimeout:
            exchange.check_abandoned()
        except BaseException:
            worker.log.exception("%s: the hook post_request failed", exchange.title())

    worker.application = with_hooks
    worker.after_request = finish
