"""Loading the application, and what is said where that fails."""

import sys

import pytest

from gateway.loader import LoadError, load_application

MODULE = """
def application(environ, start_response): ...
def factory(): return application
class Site:
    wsgi = application
    name = "site"
site = Site()
number = 7
def makes_nothing(): return None
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """A folder of modules that no other test sees."""
    (tmp_path / "loaded.py").write_text(MODULE)
    (tmp_path / "only_app.py").write_text("app = lambda environ, start_response: []")
    (tmp_path / "neither.py").write_text("def main(): ...\ndef other(): ...\n_hidden = main")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needs.py").write_text("import no_such_module_at_all")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    "target",
    [
        "loaded",
        "loaded:",
        "loaded:application",
        "loaded:factory()",
        "loaded:site.wsgi",
        "only_app",
        "package.inner:application",
        "loaded.py",
        "loaded.py:application",
        "./loaded.py:factory()",
        "package/inner.py:site.wsgi",
    ],
)
def test_application_is_found(target):
    assert callable(load_application(target))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("", "must look like module:attr"),
        (":app", "names no module"),
        ("nowhere:app", "there is no module 'nowhere' .searched in "),
        ("package.nowhere:app", "there is no module 'package.nowhere'"),
        ("nowhere.inner:app", "there is no module 'nowhere'"),
        ("nowhere.py:app", "there is no file 'nowhere.py'"),
        ("package:app", "has no 'app'"),
        ("neither", "neither application nor app; it has main, other"),
        ("empty", "it has nothing that can be called"),
        ("loaded:aplication", "did you mean application?"),
        ("loaded:zzz", "it has Site, application, factory, makes_nothing"),
        ("loaded:site.wsgy", "did you mean wsgi?"),
        ("loaded:number", "is a int, which cannot be called"),
        ("loaded:number()", "is a int, not a factory"),
        ("loaded:makes_nothing()", "is a NoneType, which cannot be called"),
    ],
)
def test_a_mistake_in_the_name_says_what_there_is(target, words):
    with pytest.raises(LoadError, match=words):
        load_application(target)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("broken:app", ZeroDivisionError),
        ("broken.py:app", ZeroDivisionError),
        ("needs:app", ModuleNotFoundError),
        ("needs.py:app", ModuleNotFoundError),
    ],
)
def test_an_error_of_the_application_is_its_own(target, error):
    with pytest.raises(error):
        load_application(target)
