"""start_response: what may be replaced, what is refused, what an exception does (PEP 3333)."""

import re

import pytest
from clients import SINGLE
from rules_app import BAD_HEADS, EXCEPTIONS, WRONG_RESULTS

SECRETS = (b"Injected", b"X-Evil", b"Evil", b"never seen")


def follow(server, peer):
    """The next request: on the same connection where the protocol keeps it."""
    if peer.protocol in SINGLE:
        peer.close()
        peer = server.connect(peer.protocol)
    answer = peer.ask("/pid")
    assert answer.status == 200
    assert [int(answer.body)] == server.workers
    assert answer.whole


def fails_cleanly(server, protocol, target):
    """500, nothing of the application's on the wire, connection and worker sound."""
    peer = server.connect(protocol)
    answer = peer.ask(target)
    assert answer.status == 500
    assert answer.whole
    assert answer.body == b"Internal Server Error\n"
    assert not [word for word in SECRETS if word in answer.head + answer.body]
    follow(server, peer)
    return answer


def is_cut(server, protocol, target, body=b"begun"):
    """What was sent stays sent; the client can tell that it is not all."""
    answer = server.ask(protocol, target)
    assert answer.status == 200
    assert answer.body in (b"", body)  # a reset may overtake what was sent
    assert answer.fault
    follow(server, server.connect(protocol))


def test_exc_info_before_the_head_replaces_it(rules, protocol):
    answer = rules.ask(protocol, "/replaced")
    assert (answer.status, answer.body, answer.whole) == (418, b"replaced", True)
    assert answer.get("x-new") == "1"
    assert answer.get("x-old") is None


def test_nothing_is_sent_for_an_empty_first_piece(rules, protocol):
    """Else the head could not be replaced any more."""
    answer = rules.ask(protocol, "/replaced-after-nothing")
    assert (answer.status, answer.body, answer.whole) == (418, b"replaced", True)
    assert answer.get("x-old") is None


def test_exc_info_after_the_head_is_raised_and_the_connection_cut(rules, protocol, name):
    is_cut(rules, protocol, f"/too-late?{name}")
    rules.wait_for_log(rf"raised again {name}\n")
    rules.wait_for_log(r"ValueError: the original exception\n")


def test_start_response_twice_without_exc_info_is_500(rules, protocol):
    answer = fails_cleanly(rules, protocol, "/twice")
    assert answer.get("x-first") is None
    rules.wait_for_log("start_response was called twice without exc_info")


@pytest.mark.parametrize("page", ["never", "never-generator", "never-empty", "file-without-start"])
def test_start_response_never_called_is_500(rules, protocol, page):
    fails_cleanly(rules, protocol, f"/{page}")
    rules.wait_for_log("answered without calling start_response")


def test_start_response_may_wait_for_the_first_piece(rules, protocol):
    answer = rules.ask(protocol, "/lazy-start")
    assert (answer.status, answer.body, answer.whole) == (200, b"lazy", True)


@pytest.mark.parametrize(
    ("page", "body"), [("written", b"one two three"), ("written-sized", b"one two")]
)
def test_write(rules, protocol, page, body):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/{page}")
    assert (answer.status, answer.body, answer.whole) == (200, body, True)
    follow(rules, peer)


@pytest.mark.parametrize("case", BAD_HEADS)
def test_a_bad_header_or_status_is_500_and_nothing_of_it_on_the_wire(rules, protocol, case):
    fails_cleanly(rules, protocol, f"/bad-head?{case}")


def test_the_application_may_answer_better_after_a_bad_header(rules, protocol):
    answer = rules.ask(protocol, "/bad-head-replaced")
    assert (answer.status, answer.body, answer.get("x-good")) == (503, b"recovered", "1")
    assert answer.get("x-evil") is None


def test_a_header_list_that_is_changed_later_puts_nothing_on_the_wire(rules, protocol):
    answer = rules.ask(protocol, "/bad-head-later")
    assert (answer.status, answer.body, answer.get("x-good")) == (200, b"body", "1")
    assert b"Evil" not in answer.head


@pytest.mark.parametrize("part", ["value", "name", "status"])
def test_text_that_prints_as_something_else_is_sent_as_what_it_is(rules, protocol, part):
    """A subclass of str passes the checks by its content and must not print another."""
    answer = rules.ask(protocol, f"/shouting-{part}")
    assert b"Injected" not in answer.head
    assert (answer.status, answer.body, answer.get("x-plain")) == (200, b"body", "quiet")


def test_names_and_values_may_be_members_of_a_text_enum(rules, protocol):
    answer = rules.ask(protocol, "/enum-head")
    assert (answer.status, answer.get("x-word")) == (200, "word")


def test_odd_but_good_headers_arrive_as_they_are(rules, protocol):
    answer = rules.ask(protocol, "/odd-but-good")
    assert answer.status == 299
    assert b"299 \xe9 odd\r\n" in answer.head
    assert b"X-Tab: a\tb\r\n" in answer.head
    assert b"X-Latin: \xe9\r\n" in answer.head
    assert answer.get("x-empty") == ""


@pytest.mark.parametrize("case", WRONG_RESULTS)
def test_an_answer_of_the_wrong_type_is_500(rules, protocol, case):
    fails_cleanly(rules, protocol, f"/wrong-result?{case}")


def test_write_takes_only_bytes(rules, protocol):
    fails_cleanly(rules, protocol, "/wrong-written")


def test_a_piece_of_the_wrong_type_after_the_head_cuts(rules, protocol, name):
    is_cut(rules, protocol, f"/wrong-later?{name}")


@pytest.mark.parametrize("page", ["raises", "raises-started"])
@pytest.mark.parametrize("case", EXCEPTIONS)
def test_an_exception_before_the_head_is_500_and_ends_nothing_else(rules, protocol, case, page):
    """SystemExit and KeyboardInterrupt too: the same worker answers the next request."""
    before = len(re.findall(case, rules.log))
    answer = fails_cleanly(rules, protocol, f"/{page}?{case}")
    assert answer.get("x-old") is None
    rules.wait_for_log(case, before + 1)


@pytest.mark.parametrize("page", ["raises-later", "raises-after-write"])
@pytest.mark.parametrize("case", [case for case in EXCEPTIONS if case != "StopIteration"])
def test_an_exception_after_the_head_cuts_and_ends_nothing_else(rules, protocol, case, page):
    is_cut(rules, protocol, f"/{page}?{case}")


def test_endless_recursion_is_500(rules, protocol):
    fails_cleanly(rules, protocol, "/recursion")
