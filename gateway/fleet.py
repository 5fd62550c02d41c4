"""The workers: start what is missing, retire what is too many, bury what has died."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic

from gateway.accesslog import AccessLog
from gateway.burial import bury
from gateway.child import Child, Generation
from gateway.health import Health
from gateway.reloading import Reloading
from gateway.scaling import Scaling
from gateway.sockets import Listener
from gateway.spawning import Spawner
from gateway.stillness import Stillness

EXIT_LOAD = 3

#: A worker that dies this soon, and has served nothing, counts as a failed start, seconds.
_SOON = 1.0
#: First and longest pause before a failed start is tried again, seconds.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
#: How often ``review`` is meant to be called at least, seconds.
_LOOK = 1.0
#: What a worker may take beyond graceful_timeout to be gone, seconds.
MERCY = 2.0


class Fleet:
    """As many workers as there should be, of the generation that is current.

    ``news(kind, text)`` hears of ``settled`` (all are there), ``reloaded``,
    ``abandoned`` (a reload) and ``failed`` (the very first start).
    ``hook(generation, name, *arguments)`` calls a hook and contains its failure.
    """

    def __init__(
        self,
        generation: Generation,
        spawner: Spawner,
        listeners: list[Listener],
        selector: selectors.BaseSelector,
        log: logging.Logger,
        access: AccessLog | None,
        news: Callable[[str, str], None],
        hook: Callable[..., bool],
    ) -> None:
        self.generation = generation
        self.scaling = Scaling(generation.settings)
        self.reloading = Reloading()
        self.children: list[Child] = []
        self.stopping = False
        #: When to try again what could not be started (monotonic); 0.0: now.
        self.start_after = 0.0
        self._spawner = spawner
        self._listeners = listeners
        self._selector = selector
        self._log = log
        self._access = access
        self._news = news
        self._hook = hook
        self._health = Health(log)
        self._stillness = Stillness()
        self._was_ready = False
        self._failures = 0
        #: Whether the listeners are in the selector, and one has a connection waiting.
        self._listening = False
        self._knock = False

    def workers(self) -> list[Child]:
        """Those that serve or will."""
        return [child for child in self.children if not (child.is_template or child.retiring)]

    # As many as there should be

    def balance(self) -> None:
        """Start what is missing and retire what is too many."""
        if self.stopping:
            return
        self._follow_load()
        wanted = self.scaling.wanted
        workers = self.workers()
        new = [it for it in workers if it.generation is self.generation and not it.worn]
        old = [child for child in workers if child not in new]
        ready = [child for child in new if child.ready]
        if monotonic() >= self.start_after:
            self.start_after = 0.0
            self._start(self._missing(old, new, ready))
        # Only workers that serve count; what a second reload overtook just goes.
        settled = sorted((child for child in old if child.ready), key=lambda it: not it.silent)
        surplus = settled[: max(0, len(ready) + len(settled) - wanted)]
        surplus += ready[: max(0, len(new) - wanted)]
        for child in [child for child in old if not child.ready] + surplus:
            self.retire(child)
        if not old and len(ready) >= wanted and not self.scaling.resting:
            self._settled(len(ready))
        self._watch_listeners(not (workers or wanted or self.scaling.resting))

    def _missing(self, old: list[Child], new: list[Child], ready: list[Child]) -> int:
        missing = self.scaling.wanted - len(new)
        strategy = self.generation.settings.reload_strategy
        if not old or (self.reloading.active and ready and strategy == "all"):
            return missing
        # One at a time; of a reload the first is the canary.
        return min(missing, 1) if len(ready) == len(new) else 0

    def _follow_load(self) -> None:
        leaving = self.scaling.review(monotonic(), self.workers(), knock=self._knock)
        self._knock = False
        if leaving is not None:
            # Who goes last has nobody to give its connections to.
            self.retire(leaving, signal.SIGUSR2 if self.scaling.wanted else signal.SIGTERM)

    def _settled(self, count: int) -> None:
        """All that should be there are, and all run the current code."""
        if self.reloading.active:
            self._log.info("reloaded: %d workers", count)
            self.reloading.succeed(f"reloaded: {count} workers")
            self._end_templates(keep=self.generation.template)
            self._news("reloaded", f"{count} workers")
        elif not self._was_ready:
            self._news("settled", f"{count} workers")
        self._was_ready = True

    def _watch_listeners(self, on: bool) -> None:
        """Without a worker, the connection that needs one is waited for."""
        if on == self._listening:
            return
        self._listening = on
        for listener in self._listeners:
            if on:
                self._selector.register(listener.sock, selectors.EVENT_READ, self._knocked)
            else:
                self._selector.unregister(listener.sock)

    def _knocked(self) -> None:
        self._knock = True

    def rest(self, *, others_serve: bool) -> None:
        """Have all workers leave until the next reload."""
        self.scaling.resting = True
        self.scaling.wanted = 0
        for child in self.workers():
            self.retire(child, signal.SIGUSR2 if others_serve else signal.SIGTERM)

    def close_listeners(self, *, unlink: bool) -> None:
        """Let go of the manager's copies of the listening sockets."""
        self._watch_listeners(False)
        for listener in self._listeners:
            listener.close(unlink=unlink)

    def stop(self, number: signal.Signals, grace: float) -> None:
        """Have all leave within ``grace`` seconds, and start no more."""
        self.stopping = True
        for child in list(self.children):
            if child.is_template:
                self._end_template(child)
            else:
                self._bound(child, grace)
                self.kill(child, number)

    # Reload

    def renew(self, generation: Generation) -> None:
        """Replace all workers by those of ``generation``, once those are ready."""
        scaling = Scaling(generation.settings)
        scaling.carry_over(self.scaling)
        scaling.wanted = max(1, scaling.wanted)  # a canary in any case
        self.generation, self.scaling = generation, scaling
        self.start_after = 0.0

    def _abandon_reload(self, reason: str) -> None:
        """The new code does not start: the old workers are the current ones again."""
        before, scaling = self.reloading.generation, self.reloading.scaling
        assert before is not None
        assert scaling is not None
        kept = [child for child in self.workers() if child.generation is not self.generation]
        self.reloading.fail(reason)
        if not kept and before.template is None:
            return  # there is nothing to go back to
        self._log.error("reload failed, the old workers go on serving")
        self.generation, self.scaling = before, scaling
        for child in self.workers():
            if child.ready:
                child.generation = before
            else:
                self.retire(child)
        self._end_templates(keep=before.template)
        self._news("abandoned", reason)

    # One child

    def retire(self, child: Child, number: signal.Signals = signal.SIGUSR2) -> None:
        """Have a worker answer what it has and leave."""
        child.retiring = True
        if child.silent and self._health.is_silent(child, monotonic()):
            self._health.abort(child)
            return
        self._bound(child, self.generation.settings.graceful_timeout + MERCY)
        self.kill(child, number)

    def _bound(self, child: Child, grace: float) -> None:
        """It must be gone in ``grace`` seconds; one that still loads has nothing to finish."""
        child.deadline = monotonic() + (grace if child.ready else min(grace, MERCY))

    def kill(self, child: Child, number: int) -> None:
        """Send a signal."""
        if child.pid:  # 0 would be our own process group
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def _start(self, count: int) -> None:
        for _ in range(count):
            template = self.generation.template
            if template is not None and not template.ready:
                return
            try:
                if template is None and self.generation.settings.preload_app:
                    self._add(self._spawner.start_template(self.generation, self.scaling.wanted))
                    return
                self._add(self._spawner.start_worker(self.generation, self.scaling.wanted))
            except OSError as error:
                self._log.error("cannot start a worker: %s", error)
                self.start_after = monotonic() + _FIRST_PAUSE
                return
            except BaseException:  # noqa: BLE001 - the hook pre_fork, which may even exit
                self._log.error("cannot start a worker: the hook pre_fork failed", exc_info=True)
                self.start_after = monotonic() + _FIRST_PAUSE
                self._cannot_start(self.generation, traceback.format_exc())
                return

    def _add(self, child: Child) -> None:
        self.children.append(child)
        self._selector.register(child.pipe, selectors.EVENT_READ, partial(self._hear, child))
        if child.is_template:
            self.generation.template = child
            self._log.info("template %d starts", child.pid)
        elif child.pid:
            self._log.info("worker %d starts", child.pid)

    def _hear(self, child: Child) -> None:
        """A child reports, or its end of the pipe closes."""
        was_ready, was_worn, was_named = child.ready, child.worn, child.pid
        if not child.hear():
            self._selector.unregister(child.pipe)
            if not child.pid:  # a template's worker that never told who it is
                self._bury(child, None)
            return
        if child.pid != was_named:
            self._log.info("worker %d starts", child.pid)
            if child.deadline:  # told to go before it had a number
                self.kill(child, signal.SIGTERM)
        if child.ready and not was_ready:
            kind = "template" if child.is_template else "worker"
            self._log.info("%s %d is ready", kind, child.pid)
        if child.worn != was_worn:
            self._log.info("worker %d is to be replaced: %s", child.pid, child.worn)

    def _end_templates(self, keep: Child | None) -> None:
        for child in list(self.children):
            if child.is_template and child is not keep:
                self._end_template(child)

    def _end_template(self, child: Child) -> None:
        """A template leaves when its pipe closes."""
        if not child.retiring:
            child.retiring = True
            child.deadline = monotonic() + MERCY
            self._close_pipe(child)

    def _is_heard(self, child: Child) -> bool:
        number = child.pipe.fileno()
        return number != -1 and number in self._selector.get_map()

    def _close_pipe(self, child: Child) -> None:
        if self._is_heard(child):
            self._selector.unregister(child.pipe)
        child.pipe.close()

    # The dead

    def reaped(self, pid: int, code: int) -> None:
        """A process has ended: a child of ours, or an orphan, of which nothing is said."""
        for child in list(self.children):
            if not child.pid:
                self._hear(child)
        for child in self.children:
            if child.pid == pid:
                self._bury(child, code)
                return

    def _bury(self, child: Child, code: int | None) -> None:
        """Log how a child ended and decide whether to go on."""
        self.children.remove(child)
        if self._is_heard(child):
            child.hear()  # its last words
        self._close_pipe(child)
        generation = child.generation
        if generation.template is child:
            generation.template = None
        expected = child.retiring or self.stopping
        has_served = child.has_served
        bury(child, code, expected=expected, log=self._log, access=self._access)
        if not child.is_template:
            view = self._spawner.worker_view(generation, child.number, child.pid)
            self._hook(generation, "child_exit", self._spawner.server_view(generation), view)
        if expected:
            return
        if not child.ready:
            self._cannot_start(child.generation, child.failure or "")
        elif has_served or monotonic() - child.ready_at > _SOON:
            self._failures = 0
            return
        self._failures += 1
        pause = min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE)
        self.start_after = monotonic() + pause

    def _cannot_start(self, generation: Generation, reason: str) -> None:
        """A start failed: the end of a reload, or of the very first start."""
        if self.reloading.active and generation is self.generation:
            self._abandon_reload(reason)
        elif not self._was_ready and self.scaling.least:
            self._news("failed", reason)

    # What nothing reports

    def review(self) -> None:
        """Apply the deadlines, and look for workers that are to be replaced."""
        now = monotonic()
        lost = self._stillness.lost(now)
        self._stillness.expect(_LOOK)
        if lost:
            self._log.warning("the process stood still for %.1f s", lost)
            for child in self.children:
                child.excuse(lost, now)
        for child in list(self.children):
            patience = child.generation.settings.startup_timeout
            if child.deadline:
                if now > child.deadline:
                    self._give_up(child, now)
            elif not child.ready and now - child.started > patience:
                child.failure = "it was not ready within startup_timeout"
                self.kill(child, signal.SIGKILL)
        if not self.stopping:
            self._health.review(self.workers(), now)

    def _give_up(self, child: Child, now: float) -> None:
        self._log.error("worker %d does not leave: killed", child.pid)
        child.deadline = now + MERCY  # to say so again, not to say it all the time
        self.kill(child, signal.SIGKILL)
