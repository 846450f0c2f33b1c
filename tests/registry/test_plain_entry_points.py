"""What is read without importlib.metadata is what that reads: the same plugins, in the same order."""

import importlib.machinery
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, DistributionFinder, entry_points
from pathlib import Path
from sysconfig import get_path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostdev_core.registry.entry_points import find_entry_points, find_origin
from hostdev_core.registry.plain_entry_points import find_plain

pytestmark = pytest.mark.quick_cases

GROUP = "hostdev"
Files = dict[str, str | bytes]
MANY = "[console_scripts]\nx = x:main\n\n[hostdev]\n# a comment\none = os\n two=os.path:join\n"


def dist(
    stem: str, entries: str | bytes = "[hostdev]\none = os\n", metadata: str = "METADATA"
) -> Files:
    name, _, version = stem.rpartition(".")[0].partition("-")
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version or 1}\n\nA text.\n"
    return {f"{stem}/entry_points.txt": entries, f"{stem}/{metadata}": text}


def write(folder: Path, files: Files) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


@contextmanager
def found_in(folders: Iterable[Path | str]) -> Iterator[None]:
    """Nothing but these folders is on sys.path, and Python itself, which brings no distribution."""
    before = sys.path[:]
    sys.path[:] = [*map(str, folders), get_path("stdlib"), get_path("platstdlib")]
    try:
        yield
    finally:
        sys.path[:] = before


def described(entry: Any) -> tuple[object, ...]:
    """All that hostdev uses of an entry point."""
    try:
        loaded: object = entry.module, entry.load()
    except Exception as error:
        loaded = repr(error)
    return entry.name, entry.value, loaded, find_origin(entry), entry.dist.name


def check(folders: Iterable[Path | str], *, plain: bool) -> list[str]:
    """The answer is that of importlib.metadata; the names found."""
    with found_in(folders):
        wanted = [described(entry) for entry in entry_points(group=GROUP)]
        found = find_plain(GROUP)
        assert (found is not None) == plain
        if found is not None:
            assert [described(entry) for entry in found] == wanted
        all_found, errors = find_entry_points()
        assert sorted(map(repr, map(described, all_found))) == sorted(map(repr, wanted))
        assert not errors
    return [str(entry[0]) for entry in wanted]


PLAIN: dict[str, Files] = {
    "a wheel": dist("a-1.dist-info", MANY),
    "two versions of one": dist("a-1.dist-info") | dist("a-2.dist-info", "[hostdev]\nb = os\n"),
    "one name in two spellings": dist("My.Pkg-1.dist-info") | dist("my_pkg-2.egg-info"),
    "a folder of setup.py": dist("a-1.egg-info", MANY, "PKG-INFO"),
    "a file of distutils": {"a-1.egg-info": "Metadata-Version: 1.0\nName: a\nVersion: 1\n"},
    "an editable one": dist("__editable__.a-1.dist-info") | {"a.pth": "/nowhere\n"},
    "what pip left over": dist("~p-1.dist-info"),
    "a version that is missing": dist("a.dist-info"),
    "without a list": {"a-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: a\nVersion: 1\n"},
    "a list that is a folder": {"a-1.dist-info/entry_points.txt/x": ""},
    "sections twice": dist("a-1.dist-info", "[hostdev]\na = os\n[x]\n[hostdev]\nb = sys\n"),
    "before a section": dist("a-1.dist-info", "garbage\n[hostdev]\na = os\n"),
    "odd lines": dist("a-1.dist-info", "[[hostdev]]\r\n=os\r\n a b = os \r\n#c\r\n[x =os\r\n"),
    "of others only": dist("a-1.dist-info", "[x]\na = : garbage\n"),
    "of Windows": dist("a-1.dist-info", "[hostdev]\r\na = os\r\n"),
    "a module that is missing": dist("a-1.dist-info", "[hostdev]\na = no_such_module:x\n"),
    "a name that is missing": dist("a-1.dist-info", "[hostdev]\na = os:path.none\n"),
    "other metadata": dist("a-1.dist-info") | {"a-1.dist-info/METADATA": "Name: b\nVersion: 2\n"},
    "another name inside": dist("a-1.dist-info")
    | {"a-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: b\n  c\nVersion: 2\n"},
}
ODD: dict[str, Files] = {
    "extras": dist("a-1.dist-info", "[hostdev]\na = os [more]\n"),
    "blanks in a value": dist("a-1.dist-info", "[hostdev]\na = os : path\n"),
    "letters of other alphabets": dist("ä-1.dist-info"),
    "letters of other alphabets in a value": dist("a-1.dist-info", "[hostdev]\na = ös\n"),
    "no value": dist("a-1.dist-info", "[hostdev]\na =\nb = os=x\n"),
    "in capitals": dist("a-1.DIST-INFO"),
    "without a name": dist("-1.dist-info"),
}


@pytest.mark.parametrize("files", PLAIN.values(), ids=PLAIN.keys())
def test_plain(tmp_path: Path, files: Files) -> None:
    write(tmp_path, files)
    check([tmp_path, tmp_path / "missing"], plain=True)


@pytest.mark.parametrize("files", ODD.values(), ids=ODD.keys())
def test_odd(tmp_path: Path, files: Files) -> None:
    write(tmp_path, files)
    check([tmp_path], plain=False)


def test_an_earlier_folder_goes_first(tmp_path: Path) -> None:
    write(tmp_path / "1", dist("my-pkg-1.dist-info") | dist("b-1.dist-info", "[hostdev]\nb = os\n"))
    write(tmp_path / "2", dist("B-2.egg-info", "[hostdev]\nc = os\n") | dist("d-1.dist-info"))
    folders = [tmp_path / "1", tmp_path / "2", tmp_path / "1"]
    assert sorted(check(folders, plain=True)) == ["b", "one", "one"]


def test_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, dist("a-1.dist-info"))
    monkeypatch.chdir(tmp_path)
    assert check([""], plain=True) == ["one"]


def test_a_zip_and_an_egg(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as file:
        file.writestr("a-1.dist-info/entry_points.txt", "[hostdev]\none = os\n")
        file.writestr("a-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: a\nVersion: 1\n")
    assert check([tmp_path / "site.zip"], plain=False) == ["one"]
    write(tmp_path / "b-1-py3.egg", {"EGG-INFO/entry_points.txt": "[hostdev]\ntwo = os\n"})
    write(tmp_path / "b-1-py3.egg", {"EGG-INFO/PKG-INFO": "Name: b\nVersion: 1\n"})
    assert check([tmp_path / "b-1-py3.egg"], plain=False) == ["two"]


def test_a_file_on_the_path(tmp_path: Path) -> None:
    write(tmp_path, {"no.zip": "garbage"} | dist("a-1.dist-info"))
    assert check([tmp_path / "no.zip", tmp_path], plain=False) == ["one"]


class Finder(DistributionFinder):
    """Another finder: it has one distribution, in a folder that is not on sys.path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, *_: object) -> None:
        """It finds no modules."""

    def find_distributions(self, context: Any = None) -> Iterable[Distribution]:
        return [Distribution.at(self._folder)]


def test_a_finder_of_another_kind(tmp_path: Path) -> None:
    write(tmp_path, dist("a-1.dist-info"))
    sys.meta_path.append(Finder(tmp_path / "a-1.dist-info"))
    try:
        assert check([], plain=False) == ["one"]
        assert importlib.machinery.PathFinder in sys.meta_path
    finally:
        sys.meta_path.pop()


@pytest.mark.parametrize("text", ["[hostdev]\none\n", "[x]\none\n", b"[hostdev]\n\xff = os\n"])
def test_a_damaged_list_is_an_error_and_the_others_are_found(
    tmp_path: Path, text: str | bytes
) -> None:
    write(tmp_path, dist("a-1.dist-info", text) | dist("b-1.dist-info"))
    with found_in([tmp_path]):
        found, (error,) = find_entry_points()
    assert [entry.name for entry in found] == ["one"]
    assert error.plugin == "a"


def test_the_shipped_go_first_and_no_other_of_their_names(tmp_path: Path) -> None:
    ours = "[hostdev]\ntest = hostdev_test\nqemu = hostdev_qemu\n"
    write(tmp_path / "2", dist("hostdev-1.dist-info", ours))
    write(tmp_path / "1", dist("another-1.dist-info", "[hostdev]\nlibxl = os\nqemu = os\na = os\n"))
    with found_in([tmp_path / "1", tmp_path / "2"]):
        found, _ = find_entry_points()
    first, *rest = [(entry.name, entry.value) for entry in found]
    assert first == ("qemu", "hostdev_qemu")
    assert rest == [("test", "hostdev_test"), ("a", "os"), ("libxl", "os"), ("qemu", "os")]


def test_what_the_user_may_not_read(tmp_path: Path) -> None:
    write(tmp_path, dist("a-1.dist-info") | dist("b-1.dist-info"))
    (tmp_path / "a-1.dist-info/entry_points.txt").chmod(0)
    names = check([tmp_path], plain=True)
    assert names == ["one"] * (2 if os.geteuid() == 0 else 1)


STEMS = st.text("ab-._A1~é", max_size=4)
KINDS = st.sampled_from([".dist-info", ".egg-info", ".Dist-Info", ".egg", ""])
LINES = st.sampled_from(
    ["[hostdev]", "[x]", "[]", "[hostdev", "a = os", "b=os:path", "c = os : x", "# d = os", "", " ",
     "e", "=os", "f = ", "g = os [h]", "i = .os", "j = os:", "k = os:a:b", "\x1c", "l = é"]
)  # fmt: skip
LISTS = st.lists(LINES, max_size=6).map("\n".join)
FOLDERS = st.lists(st.dictionaries(st.tuples(STEMS, KINDS), LISTS, max_size=4), max_size=3)


@pytest.mark.long
@settings(max_examples=500, deadline=None)
@given(FOLDERS)
def test_any(tree: list[dict[tuple[str, str], str]]) -> None:
    """Where it has an answer, it is that of importlib.metadata."""
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(number)) for number in range(len(tree))]
        for folder, found in zip(folders, tree, strict=True):
            for (stem, kind), text in found.items():
                write(folder, {f"{stem}{kind}x/y": ""} if kind == "" else dist(stem + kind, text))
        with found_in(folders):
            plain = find_plain(GROUP)
            if plain is not None:
                wanted = [
                    (e.name, e.value, e.dist and e.dist.name) for e in entry_points(group=GROUP)
                ]
                assert [(e.name, e.value, e.dist.name) for e in plain] == wanted
