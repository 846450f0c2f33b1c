"""The driver table: drivers in the order of registration, chosen by a URI's scheme and opened by probe."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from hostdev_core.checks import are_all, are_texts, call_driver
from hostdev_core.driver import HostdevDriver, OpenResult
from hostdev_core.errors import (
    DriverConflictError,
    HostdevError,
    NoDriverError,
    OpenError,
    PluginError,
)
from hostdev_core.model.address import quoted
from hostdev_core.model.names import is_stub_name

if TYPE_CHECKING:
    from hostdev_core.connection import Connection


log = logging.getLogger("hostdev")
_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}", re.A)
_FLAGS = ("needs_iommu", "takes_usb", "tries_vfio")
_SCHEME = re.compile("[a-z][a-z0-9+.-]{0,63}", re.A)


class DriverTable:
    """Drivers in order. A scheme belongs to one plugin, which may put several drivers under it."""

    def __init__(self) -> None:
        self._drivers: list[HostdevDriver] = []
        self._plugins: dict[int, str] = {}  # by the driver's id: a driver need not be hashable

    def __len__(self) -> int:
        return len(self._drivers)

    def __iter__(self) -> Iterator[HostdevDriver]:
        return iter(tuple(self._drivers))

    @property
    def schemes(self) -> tuple[str, ...]:
        """All URI schemes, in table order."""
        schemes = (scheme for driver in self._drivers for scheme in driver.uri_schemes)
        return tuple(dict.fromkeys(schemes))

    def register(
        self, rows: "list[HostdevDriver] | tuple[HostdevDriver, ...]", plugin: str
    ) -> None:
        """Add all drivers of one plugin or none.

        Raises DriverConflictError when a name is taken or a scheme is another plugin's, PluginError
        for an object that is no driver.
        """
        names = {driver.name for driver in self._drivers}
        for driver in rows:
            if not isinstance(driver, HostdevDriver):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise _no_driver(driver, plugin)
            _check_form(driver, plugin)
            if driver.name in names:
                raise DriverConflictError(
                    f"plugin {plugin} brings driver {driver.name!r}, a name that is taken by plugin"
                    f" {self.plugin_of_name(driver.name) or plugin}; disable one of them",
                    plugin=plugin,
                )
            names.add(driver.name)  # two of one plugin may not share a name, either
            self._check_schemes(driver, plugin)
        self._drivers += rows
        self._plugins |= {id(driver): plugin for driver in rows}

    def _check_schemes(self, driver: HostdevDriver, plugin: str) -> None:
        for other in self._drivers:
            shared = sorted({*driver.uri_schemes} & {*other.uri_schemes})
            if shared and self.plugin_of(other) != plugin:
                raise DriverConflictError(
                    f"plugins {self.plugin_of(other)} and {plugin} both claim URI scheme {shared[0]!r};"
                    " disable one of them",
                    plugin=plugin,
                )

    def plugin_of(self, row: HostdevDriver) -> str:
        """The name of the plugin that registered a driver."""
        return self._plugins[id(row)]

    def plugin_of_name(self, name: str) -> str | None:
        """The name of the plugin that registered the driver of this name."""
        driver = self.find(name)
        return None if driver is None else self.plugin_of(driver)

    def find(self, name: str) -> HostdevDriver | None:
        """Find a driver by its name."""
        return next((driver for driver in self._drivers if driver.name == name), None)

    def first(self, uri: str) -> HostdevDriver | None:
        """Find the first driver of the URI's scheme; the scheme's others are of the same plugin."""
        return next(iter(self._of_scheme(uri)), None)

    def _of_scheme(self, uri: str) -> list[HostdevDriver]:
        scheme = uri.partition(":")[0].lower()
        return [driver for driver in self._drivers if scheme in driver.uri_schemes]

    def open(self, conn: "Connection", named: str) -> HostdevDriver:
        """Probe the drivers of the URI's scheme, in order, until one takes the connection.

        DECLINED goes on to the next; an exception ends the probe. Raises NoDriverError when none
        takes it, OpenError around an exception that is no HostdevError. `named` is the URI for messages.
        """
        drivers = self._of_scheme(conn.uri)
        for driver in drivers:
            try:
                result = driver.open(conn)
            except (HostdevError, KeyboardInterrupt):  # the latter is a signal's
                raise
            except BaseException as error:
                raise OpenError(
                    f"driver {driver.name} failed to open {conn.uri}: {error!r}",
                    driver=driver.name,
                    uri=conn.uri,
                ) from error
            if not isinstance(result, OpenResult):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise self._wrong_answer(driver, result)
            if result is OpenResult.SUCCESS:
                return driver
        taken = " or ".join(dict.fromkeys(uri for driver in drivers for uri in driver.uris))
        names = " and ".join(driver.name for driver in drivers)
        raise NoDriverError(
            f"{named} is declined by {names}; wanted {taken or 'a URI that the documentation of it names'}"
        )

    def _wrong_answer(self, driver: HostdevDriver, answer: object) -> PluginError:
        # A LocalHostdevDriver's author wrote open_backend, whose answer `open` hands on.
        method = "open_backend" if hasattr(driver, "open_backend") else "open"
        return PluginError(
            f"driver {driver.name}: {method} answered {answer!r:.120}; wanted OpenResult.SUCCESS, or"
            " OpenResult.DECLINED where the connection is another driver's",
            plugin=self.plugin_of(driver),
            hook=method,
        )


def close(driver: HostdevDriver, conn: "Connection") -> None:
    """Close a driver. An error is logged only: the connection's work is done, and must not seem to fail."""
    try:
        call_driver(driver, "close", lambda: driver.close(conn))
    except HostdevError as error:
        log.error(
            "driver %s: its connection to %s was not closed well: %s", driver.name, conn.uri, error
        )


def _no_driver(value: object, plugin: str) -> PluginError:
    hint = f"; wanted an object of it: {value.__name__}()" if isinstance(value, type) else ""
    return PluginError(
        f"plugin {plugin} brings {quoted(value)}, which is no HostdevDriver{hint}", plugin=plugin
    )


def _check_form(driver: HostdevDriver, plugin: str) -> None:
    """Raise PluginError for attributes of a wrong form.

    Names are shown, typed and recorded, and a scheme in upper case would never be found.
    """
    name: object = getattr(driver, "name", None)
    schemes: object = getattr(driver, "uri_schemes", None)
    stubs: object = getattr(driver, "stubs", ("none",))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problem = f"has the name {name!r:.80}; wanted one word"
    elif not isinstance(schemes, (tuple, list)) or not all(
        isinstance(scheme, str) and _SCHEME.fullmatch(scheme)
        for scheme in cast("Sequence[object]", schemes)
    ):
        problem = f"has uri_schemes {schemes!r:.80}; wanted a tuple of texts in lower case, like ('qemu',)"
    elif not _are_stubs(stubs):
        problem = f"has stubs {stubs!r:.80}; wanted a tuple of kernel drivers, like ('vfio-pci',)"
    elif not are_texts(driver.uris):
        problem = f"has uris {driver.uris!r:.80}; wanted a tuple of URIs, like ('qemu:///system',)"
    elif not _are_modules(modules := getattr(driver, "stub_modules", {})):
        problem = (
            f"has stub_modules {modules!r:.80}; wanted a module by driver, {{'own-stub': 'own'}}"
        )
    elif wrong := [flag for flag in _FLAGS if not isinstance(getattr(driver, flag, True), bool)]:
        problem = f"has {wrong[0]} {getattr(driver, wrong[0])!r:.80}; wanted True or False"
    else:
        return
    raise PluginError(f"plugin {plugin}: driver {type(driver).__name__} {problem}", plugin=plugin)


def _are_modules(value: object) -> bool:
    """Tell whether a value may be modules by the kernel driver that each brings."""
    if not isinstance(value, Mapping):
        return False
    pairs = cast("Mapping[object, object]", value).items()
    return all(isinstance(text, str) and text for pair in pairs for text in pair)


def _are_stubs(value: object) -> bool:
    """Tell whether a value may be names of kernel drivers, the default first."""
    return bool(value) and are_all(value, is_stub_name)
