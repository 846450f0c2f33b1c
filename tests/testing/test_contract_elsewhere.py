"""DriverContract in somebody else's repository: one line is enough, and what is wrong is found."""

from pathlib import Path

import pytest

from tests.helpers.pytest_runs import run_pytest

DRIVER = """
from hostdev_core import LocalHostdevDriver
from hostdev_core.testing import DriverContract

class MyDriver(LocalHostdevDriver):
    name = "mine"
    uri_schemes = ("mine",)
    stubs = ("vfio-pci",)
"""
CONTRACT = """
    def arguments(self, device, node):
        return ("--device", {rendered})

class TestMine(DriverContract):
    driver = MyDriver
"""
RIGHT = DRIVER + CONTRACT.format(rendered="device.name")
SOME = tuple(
    f"test_it.py::TestMine::test_{name}"
    for name in (
        "arguments_are_words_that_tell_the_devices_apart",
        "a_managed_device_comes_back_as_found[on its driver]",
        "a_failing_prepare_leaves_everything_as_it_was[one group]",
        "every_change_fails[reattach one]",
    )
)
SLACK = ("-W", "ignore::pytest.PytestConfigWarning")  # pytest on -O


@pytest.mark.parametrize(
    ("options", "python"),
    [
        (("-p", "no:hostdev"), ()),
        *(
            pytest.param(*words, marks=pytest.mark.long)
            for words in (
                ((), ()),
                (("--import-mode=importlib",), ()),
                (("-n", "2"), ()),
                (("--rootdir=/", "--assert=plain"), ()),
                (SLACK, ("-O",)),
                ((), ("-P",)),
            )
        ),
    ],
    ids=lambda words: " ".join(words) or "-",
)
def test_one_line(tmp_path: Path, options: tuple[str, ...], python: tuple[str, ...]) -> None:
    printed = run_pytest(tmp_path / "run", RIGHT, *SOME, *options, python=python)
    assert "test_every_change_fails[reattach one]" in printed
    assert "failed" not in printed


@pytest.mark.long
@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_the_driver_in_a_package_beside_the_tests(tmp_path: Path, mode: str) -> None:
    package = tmp_path / "run" / "src" / "mine"
    package.mkdir(parents=True)
    head, tail = RIGHT.split("class TestMine")
    (package / "__init__.py").write_text(head)
    test = f"""
from mine import MyDriver
from hostdev_core.testing import DriverContract

class TestMine{tail}"""
    run_pytest(tmp_path / "run", test, *SOME, "-o", "pythonpath=src", f"--import-mode={mode}")


@pytest.mark.long
@pytest.mark.parametrize(
    ("rendered", "found", "python"),
    [
        ("device.name[-7:]", "arguments_are_words_that_tell_the_devices_apart", ("-O",)),
        ("device.name + chr(10)", "arguments_are_words_that_tell_the_devices_apart", ()),
        ("str(id(self))", "another_connection_renders_the_same", ()),
        ("self.lent.append(0) or device.name + str(len(self.lent))", "rendering_only_looks", ()),
    ],
)
def test_a_driver_that_renders_wrongly_is_found(
    tmp_path: Path, rendered: str, found: str, python: tuple[str, ...]
) -> None:
    test = f"{DRIVER}    lent = []\n{CONTRACT.format(rendered=rendered)}"
    printed = run_pytest(tmp_path / "run", test, "-k", found, *SLACK, code=1, python=python)
    assert f"FAILED test_it.py::TestMine::test_{found}" in printed


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("check_device(self, host, device)", "must only look"),
        ("run_step(self, host, step)", "undo_step must undo"),
    ],
)
def test_a_driver_that_leaves_something_behind_is_found(
    tmp_path: Path, method: str, said: str
) -> None:
    leaving = f"""
    def extra_steps(self, host, device):
        return [BackendStep("tell", device.name)]

    def {method}:
        open(host.path("run/told"), "w").close()
"""
    test = f"from hostdev_core import BackendStep\n{DRIVER}{leaving}{CONTRACT.format(rendered='device.name')}"
    printed = run_pytest(tmp_path / "run", test, "-k", "no_file_of_its_own", code=1)
    assert said in printed


@pytest.mark.long
def test_what_a_driver_declares_is_what_is_asked_of_it(tmp_path: Path) -> None:
    declared = "    takes_usb = False\n    needs_iommu = False\n"
    test = f"{DRIVER}{declared}{CONTRACT.format(rendered='device.name')}"
    chosen = ("-k", "takes_none or without_an_iommu or killed and usb")
    printed = run_pytest(tmp_path / "run", test, *chosen)
    assert "1 passed, 1 skipped" in printed
    assert "PASSED test_it.py::TestMine::test_a_driver_that_takes_none_refuses_each" in printed


@pytest.mark.long
def test_groups_that_are_declared_and_not_there_are_an_error(tmp_path: Path) -> None:
    test = f"{RIGHT}    dom0 = True\n"
    printed = run_pytest(tmp_path / "run", test, "-k", "group_with_a_member", code=1)
    assert "make_host makes no groups" in printed
