"""What the benchmarks make of what they measure: parsing, statistics, tables. Nothing is timed."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import checks, compare, load, plot, process, report
from benchmarks.growth import GROWTH
from benchmarks.measure import Turn, in_time
from benchmarks.peers import PEERS, Wanted
from benchmarks.scenarios import SCENARIOS, headers, request


def turn(cpu=10.0, errors=0, requests=10_000, **more):
    values = {"rate": 1e5, "p50": 1e-3, "p99": 2e-3, "longest": 3e-3, "memory": 1 << 24}
    return Turn(cpu=cpu, errors=errors, requests=requests, **(values | more))


def turns(*costs, **more):
    return [turn(cost, **more) for cost in costs]


def test_the_last_line_of_wrk_counts_in_seconds():
    output = (
        "Running 1s test\n  64 connections\n\n"
        '{"requests":100,"microseconds":500000,"errors":3,"p50":250.0,"p99":1000.0,"longest":2e3}\n'
    )
    found = load.parse(output)
    assert found == load.Load(100, 3, 0.5, 0.00025, 0.001, 0.002)


def test_what_wrk_complains_of_is_passed_on():
    with pytest.raises(RuntimeError, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        ({(1, 1): 1.0}, {(1, 1): 3.0}, 2.0),
        ({(1, 1): 1.0}, {(1, 1): 3.0, (1, 2): 0.5}, 2.5),
        ({(1, 1): 1.0, (1, 2): 0.5}, {(1, 1): 3.0}, None),
    ],
    ids=["one thread", "a new thread", "a thread that left"],
)
def test_time_of_threads(before, after, seconds):
    assert process.used(before, after) == seconds


def test_one_round_there_is_always():
    assert list(in_time(3, math.inf)) == [0, 1, 2]
    assert list(in_time(3, -math.inf)) == [0]


def test_a_ratio_is_that_of_each_round():
    # The machine was twice as slow in the second round: nobody became dearer by it.
    assert report.ratio(turns(10, 20, 10), turns(5, 10, 5)) == 2


def test_a_ratio_of_rounds_that_only_one_finished():
    assert report.ratio(turns(10, 20), turns(5)) == 2


def test_the_best_is_a_peer_without_errors():
    results = {
        "floor-c": turns(1),
        "gateway": turns(2),
        "bjoern": turns(3, errors=5_000),
        "granian": turns(5),
        "uwsgi": turns(4),
    }
    assert report.best(results) == "uwsgi"
    assert report.best(results, among=("granian", "bjoern")) == "granian"
    assert report.best({"gateway": turns(2)}) is None


def test_one_error_in_a_thousand_is_borne():
    assert turn(errors=10).sound
    assert not turn(errors=11).sound
    assert not turn(requests=0).sound


def test_slope_and_start_of_a_line():
    slope, start = report.line([(0, 1.0), (10, 6.0), (20, 11.0)])
    assert (slope, start) == (pytest.approx(0.5), pytest.approx(1.0))


def test_a_line_through_noise():
    assert report.line([(1, 1), (2, 3), (3, 2), (4, 4)])[0] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.1234, "0.123"), (12.345, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_figures(value, text):
    assert report.figure(value) == text


def test_a_table_of_a_scenario():
    results = {"granian": turns(12, 14, 13), "gateway": turns(13, 14, 11)}
    failed = {"bjoern": "Traceback\n\n  boom  \n"}
    lines = list(report.scenario_table(SCENARIOS["hello"], results, failed))
    assert lines[0] == "### hello: 13 bytes, kept connections"
    assert [line.split(" | ")[0] for line in lines[4:6]] == ["| granian", "| gateway"]
    assert lines[4].endswith("| 16.0 | 0 | 1.00 |")
    assert "| 13 | 12 to 14 |" in lines[4]
    assert "- bjoern: not measured: boom" in lines
    columns = {line.count("|") for line in lines if line.startswith("|")}
    assert len(columns) == 1


def test_errors_and_noise_are_seen():
    results = {"gateway": turns(10, errors=100, elsewhere=0.5)}
    text = "\n".join(report.scenario_table(SCENARIOS["hello"], results, {}))
    assert "| **100** |" in text
    assert "others had up to 0.50 cores" in text


def test_idle_connections_have_columns_of_their_own():
    results = {"gateway": turns(10, cpu_alone=9.5, idle_bytes=2048)}
    lines = list(report.scenario_table(SCENARIOS["idle-1000"], results, {}))
    assert lines[4].endswith("| 9.5 | 2,048 | 1.00 |")


def test_nobody_could_be_measured():
    lines = list(report.scenario_table(SCENARIOS["hello"], {}, {"gateway": "no core"}))
    assert "- gateway: not measured: no core" in lines


def test_the_summary_names_the_best_and_the_rival():
    everything = {
        "hello": {
            "gateway": turns(13),
            "granian": turns(26, errors=9_999),
            "bjoern": turns(6.5),
        }
    }
    row = list(report.summary(SCENARIOS, everything))[-2]
    expected = "| 13 | bjoern | 6.5 | 2.00 | granian | 26 | 0.50 (!) |"
    assert row == f"| {SCENARIOS['hello'].title} {expected}"


def test_growth_has_a_slope():
    row = list(report.growth_table("t", "each", [("gateway", [(0, 1.0), (1000, 3001.0)])]))[-2]
    assert row == "| gateway | 1 | 3,001 | 1 | **3** |"


def test_the_slopes_are_in_one_table():
    found = {
        "grow-headers": [("gateway", [(0, 1.0), (10, 2.0)]), ("uwsgi", [(0, 1.0), (10, 6.0)])],
        "grow-idle": [("gateway", [(0, 0.0), (10, 20480.0)])],
    }
    lines = list(report.growth_summary(GROWTH, found))
    assert lines[2] == "|  | gateway | uwsgi |"
    assert lines[4] == f"| {GROWTH['grow-headers'].title}: µs a field | 0.1 | 0.5 |"
    assert lines[5] == f"| {GROWTH['grow-idle'].title}: bytes each | 2,048 | - |"


def test_what_was_not_measured_has_no_table():
    assert not list(report.summary(SCENARIOS, {}))
    assert not list(report.growth_summary(GROWTH, {}))


def outcome(what, everything, growth=None):
    """(value, limit, note) of the check that begins so."""
    (found,) = [x for x in checks.outcomes(everything, growth or {}) if x[0].startswith(what)]
    return found[1:]


def test_a_check_compares_with_the_best_of_the_named():
    everything = {
        "upload": {
            "gateway": turns(200),
            "fastwsgi": turns(100),
            "granian": turns(250),
            "uwsgi": turns(400),
        }
    }
    value, limit, note = outcome("3. upload", everything)
    assert (value, limit) == (pytest.approx(0.8), 1.0)
    assert note == "200.0 / 250.0 µs (granian)"


def test_with_one_build_the_pure_one_is_it():
    everything = {"hello": {"gateway": turns(12), "granian": turns(10)}}
    assert outcome("1. hello: CPU, gateway-pure", everything)[0] == pytest.approx(1.2)
    everything["hello"]["gateway-pure"] = turns(15)
    assert outcome("1. hello: CPU, gateway-pure", everything)[0] == pytest.approx(1.5)


def test_latency_is_compared_with_the_quickest():
    everything = {
        "sleep": {
            "gateway": turns(90, p99=0.044),
            "granian": turns(50, p99=0.05),
            "waitress": turns(300, p99=0.04),
        }
    }
    value, limit, note = outcome("4. sleep: p99", everything)
    assert (value, limit) == (pytest.approx(1.1), 1.1)
    assert note == "44.0 / 40.0 ms (waitress)"


def test_what_had_errors_or_did_not_run_is_not_measured():
    everything = {"close": {"gateway": turns(10, errors=9_999), "uwsgi": turns(20)}}
    assert outcome("3. close", everything)[0] is None
    assert outcome("3. file", everything)[0] is None


def test_amounts_are_checked():
    everything = {"idle-10000": {"gateway": turns(11, cpu_alone=10.0, idle_bytes=2900.0)}}
    growth = {"worker": 15.5, "grow-workers": [("gateway", [(1, 16.0), (2, 19.0), (3, 22.0)])]}
    assert outcome("6. bytes", everything, growth)[0] == 2900
    assert outcome("6. CPU", everything, growth)[0] == pytest.approx(1.1)
    assert outcome("7. PSS of one", everything, growth)[0] == 15.5
    assert outcome("7. PSS of each", everything, growth)[0] == pytest.approx(3)
    assert outcome("7. PSS of each", {}, {})[0] is None


def test_the_table_of_checks_says_what_is_met():
    found = [("a", 1.0, 1.0, ""), ("b", 1.01, 1.0, "why"), ("c", None, 3072, "")]
    lines = list(report.checks_table(found))[4:7]
    assert lines == [
        "| a | 1 | ≤ 1 | yes |  |",
        "| b | 1.01 | ≤ 1 | **no** | why |",
        "| c | - | ≤ 3072 | not measured |  |",
    ]


def test_every_check_has_its_scenario_and_its_peers():
    for name in checks.SCENARIOS_NEEDED:
        wanted = checks.peers_needed(name)
        assert wanted is None or set(wanted) <= {*SCENARIOS[name].peers}
    assert checks.peers_needed("sleep") is None


def test_every_scenario_is_served_by_gateway_and_its_rival():
    for scenario in SCENARIOS.values():
        assert {"gateway", scenario.rival} <= set(scenario.peers)
        assert all(name in PEERS for name in scenario.peers)
        assert PEERS["gateway"].can(scenario)
        assert PEERS[scenario.rival].can(scenario)


def test_who_cannot_serve_a_scenario_is_left_out():
    assert not PEERS["bjoern"].can(SCENARIOS["workers"])
    assert not PEERS["bjoern"].can(SCENARIOS["sleep"])
    assert not PEERS["fastwsgi"].can(SCENARIOS["nginx-http-unix"])
    assert not PEERS["flup"].can(SCENARIOS["hello"])


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "unix:/tmp/a.sock"])
def test_commands_say_where_to_listen(address):
    environment = SimpleNamespace(bin="/e/bin", python="/e/bin/python", program=lambda x: x)
    for peer in PEERS.values():
        if peer.name == "floor-nginx" or (address.startswith("unix:") and not peer.unix):
            continue
        wanted = Wanted(protocol=peer.protocols[0], address=address)
        words = " ".join(map(str, peer.command(environment, wanted)))
        assert ("/tmp/a.sock" if "unix" in address else "8000") in words


def test_a_request_has_as_many_fields_as_asked():
    assert len(headers(30)) == 30
    assert len(set(headers(30)) - set(headers(10))) == 20
    data = request("/x", headers(2), b"abc", "POST")
    assert data.startswith(b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert data.endswith(b"\r\nContent-Length: 3\r\n\r\nabc")
    assert data.count(b"\r\n") == 6


def test_a_wrong_name_is_told(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--only", "hello,nonsense"])
    assert "'nonsense' is none of hello, flask," in capsys.readouterr().err


def test_names_to_choose_from_are_listed(capsys):
    compare.main(["--list"])
    assert "nginx-fastcgi-unix   FastCGI behind nginx over a unix socket" in capsys.readouterr().out


def test_the_picture_compares_with_the_best_peer():
    results = {
        "scenarios": [
            {"title": "a", "cpu": {"granian": 8.0, "gateway": 12.0, "floor-c": 6.0}},
            {"title": "b", "cpu": {"granian": 8.0}},
        ]
    }
    ((title, bars),) = plot.panels(results)
    assert title == "a"
    assert [name for name, _cost in bars] == ["floor-c", "granian", "gateway"]
    assert plot.verdict(bars) == (1.5, "granian")
    assert plot.verdict([("gateway", 1.0)]) is None
