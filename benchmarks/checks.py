"""What must be shown, as ratios of one run: each with its limit."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers import OURS
from benchmarks.report import best, line, ratio, sound, typical

#: A file, bodies and connections: not above the best of these.
_PURE_PYTHON_CHOICES = ("gunicorn-sync", "gunicorn-gthread", "granian", "uwsgi", "waitress")
_IDLE = "idle-10000"


@dataclass(frozen=True)
class Check:
    """``ours`` to ``rivals`` (the best of them; empty: of all) in one field of a scenario."""

    number: str
    scenario: str
    rivals: tuple[str, ...]
    limit: float
    field: str = "cpu"
    ours: str = "gateway"

    @property
    def what(self):
        name = {"cpu": "CPU", "p99": "p99"}[self.field]
        return f"{self.number}. {self.scenario}: {name}, {self.ours}"

    def outcome(self, everything, _growth):
        results = everything.get(self.scenario, {})
        turns = results.get(self.ours) or []
        if self.ours == "gateway-pure" and not turns:  # there is one build, and it is this
            turns = results.get("gateway") or []
        rival = best(results, self.rivals or None, self.field)
        if not sound(turns) or rival is None:
            return None, "nothing to compare" if not turns else "errors, or no peer without"
        value = ratio(turns, results[rival], self.field)
        unit, scale = ("µs", 1) if self.field == "cpu" else ("ms", 1e3)
        mine, other = (typical(x, self.field) * scale for x in (turns, results[rival]))
        return value, f"{mine:.1f} / {other:.1f} {unit} ({rival})"


@dataclass(frozen=True)
class Amount:
    """A number of its own; ``measure(everything, growth)`` is the number or None."""

    what: str
    limit: float
    measure: object

    def outcome(self, everything, growth):
        return self.measure(everything, growth), ""


def _ours(results):
    return next((results[name] for name in OURS if sound(results.get(name))), None)


def _idle_bytes(everything, _growth):
    turns = _ours(everything.get(_IDLE, {}))
    return typical(turns, "idle_bytes") if turns else None


def _idle_cpu(everything, _growth):
    turns = _ours(everything.get(_IDLE, {}))
    if not turns:
        return None
    ratios = sorted(turn.cpu / turn.cpu_alone for turn in turns)
    return ratios[len(ratios) // 2]


def _worker(_everything, growth):
    return growth.get("worker")


def _further_worker(_everything, growth):
    points = dict(growth.get("grow-workers", ())).get("gateway")
    return line(points)[0] if points else None


CHECKS = (
    Check("1", "hello", ("granian",), 1.0, ours="gateway-pure"),
    Check("1", "hello", ("bjoern",), 1.25),
    *(
        Check("2", f"nginx-{protocol}-{transport}", ("uwsgi",), 1.0)
        for protocol in ("fastcgi", "scgi")
        for transport in ("unix", "tcp")
    ),
    *(
        Check("3", name, _PURE_PYTHON_CHOICES, 1.0)
        for name in ("upload", "download", "generator", "file", "close")
    ),
    Check("4", "sleep", ("granian",), 1.2),
    Check("4", "sleep", (), 1.1, "p99"),
    Check("5", "cpu", ("gunicorn-gthread",), 1.0, "p99"),
    Check("5", "cpu-beside-long", ("gunicorn-gthread",), 1.0, "p99"),
    Amount("6. bytes of an idle connection, of 10,000", 3072, _idle_bytes),
    Amount("6. CPU of the busy beside 10,000 idle / without", 1.1, _idle_cpu),
    Amount("7. PSS of one worker with hello, MiB", 16, _worker),
    Amount("7. PSS of each further worker with preload_app, MiB", 4, _further_worker),
)

#: What has to run for them.
NEEDED = tuple(dict.fromkeys(check.scenario for check in CHECKS if isinstance(check, Check)))
SCENARIOS_NEEDED = (*NEEDED, _IDLE)
GROWTH_NEEDED = ("grow-workers",)


def peers_needed(scenario):
    """The peers that the checks compare in a scenario, with ours; None: all of them."""
    if scenario == _IDLE:
        return OURS
    rivals = [check.rivals for check in CHECKS if getattr(check, "scenario", None) == scenario]
    if () in rivals:
        return None
    return (*OURS, *(name for names in rivals for name in names))


def outcomes(everything, growth):
    """(what, value, limit, note) of each check."""
    return [(check.what, *_spread(check, everything, growth)) for check in CHECKS]


def _spread(check, everything, growth):
    value, note = check.outcome(everything, growth)
    return value, check.limit, note
