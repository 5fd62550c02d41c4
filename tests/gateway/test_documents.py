"""What the documents name is there: files, headings, commands, options, settings, variables."""

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest

import protocols
from gateway import cli
from gateway.addresses import parse_address
from gateway.settings import Settings, kind_of
from gateway.sources import CMD_ARGS
from protocols.detect import AUTO

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(
        path
        for folder in ("docs", "deploy", "benchmarks")
        for path in (ROOT / folder).rglob("*.md")
    ),
]
#: The files of deploy/ have the command line of the gateway in their heads.
DEPLOYED = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())

NAMES = {field.name for field in fields(Settings)}
KNOWN_VARIABLES = {"GATEWAY_INTERFACE", "GATEWAY_PURE", CMD_ARGS}
#: In documents about others: what is theirs.
OTHERS = {"from-gunicorn.md", "from-uwsgi.md"}


def name(path):
    return str(path.relative_to(ROOT))


def anchors(path):
    """The headings of a document as the fragment of a link names them."""
    titles = re.findall(r"(?m)^#+ (.*)$", path.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    text = re.sub(r"(?s)```.*?```", "", document.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        if fragment:
            assert fragment in anchors(file), target


#: What comes before "gateway" where a shell, systemd or another program starts it.
BEFORE = r"[#$\s]*(?:exec |ExecStart=|[A-Z_]+=\S* |spawn-fcgi .* -- )*"
COMMAND = re.compile(
    rf"^{BEFORE}(?:/\S*/)?gateway ((?:reload|serve|(?:-|\S+:\w|\S+\.py)\S*)(?: .*)?)$"
)
#: What comes after it: a comment, another command.
AFTER = re.compile(r"\s(?:#|\||&&|>).*$|\s{2,}\(.*\)$")


def commands(path):
    """Every command line of gateway: in code blocks, in the heads of files, in scripts."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    found = [COMMAND.match(line) for line in text.splitlines()]
    return [shlex.split(AFTER.sub("", match[1])) for match in found if match]


ALL_COMMANDS = {
    f"{name(path)}: {' '.join(words)}": words
    for path in DOCUMENTS + DEPLOYED
    for words in commands(path)
    if "…" not in words
}


def test_there_are_commands():
    folders = {Path(place.partition(":")[0]).parent.name for place in ALL_COMMANDS}
    assert folders >= {"how-to", "apache", "caddy", "cgi", "haproxy", "lighttpd", "nginx"}
    assert folders >= {"spawn-fcgi", "systemd"}


@pytest.mark.parametrize("words", ALL_COMMANDS.values(), ids=ALL_COMMANDS)
def test_a_command_can_be_given(words):
    command = cli.reload if words[:1] == ["reload"] else cli.serve
    words = words[1:] if words[:1] in (["reload"], ["serve"]) else words
    context = command.make_context("gateway", list(words))
    if command is cli.reload:
        return
    given = {option: value for option, value in context.params.items() if value not in (None, ())}
    for option, value in given.items():
        if option in NAMES - {"wsgi_app"}:
            kind_of(option).read(value)
    for bind in given.get("bind", ()):
        parse_address(bind, "http", [*protocols.names(), AUTO])


def options():
    known = set()
    for command in (cli.serve, cli.reload):
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                known |= {*parameter.opts, *parameter.secondary_opts}
    return known | {"--help"}


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if "benchmarks" not in d.parts], ids=name
)
def test_options_that_are_named_exist(document):
    for option in re.findall(r"`(--[a-z][a-z-]*)\b[^`]*`", document.read_text("utf-8")):
        assert option in options(), option


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_settings_that_are_named_exist(document):
    text = document.read_text("utf-8")
    for setting in re.findall(r"`([a-z][a-z_]+) = [^`]*`", text):
        assert setting in NAMES or document.name in OTHERS, setting
    for block in re.findall(r"(?s)```toml\n(.*?)```", text):
        table = tomllib.loads(block)
        table = table.get("tool", {}).get("gateway", table)
        assert table.keys() <= NAMES
        for setting, value in table.items():
            kind_of(setting).read(value)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_variables_that_are_named_exist(document):
    for variable in re.findall(r"\bGATEWAY_[A-Z_]+\b", document.read_text("utf-8")):
        setting = variable.removeprefix("GATEWAY_").lower()
        assert setting in NAMES or variable in KNOWN_VARIABLES, variable


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(document):
    text = document.read_text("utf-8")
    for path in re.findall(
        r"(?<![\w/.])(?:deploy|docs|tests|tools|examples)/[\w./-]*\w\b(?!\*)", text
    ):
        assert (ROOT / path).exists(), path
