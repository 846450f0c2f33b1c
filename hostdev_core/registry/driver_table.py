"""The driver table: rows in order, opened by scheme and probe."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from hostdev_core import backend as answers
from hostdev_core.driver import HostdevDriver, OpenResult
from hostdev_core.errors import (
    DriverConflictError,
    HostdevError,
    NoDriverError,
    OpenError,
    PluginError,
)
from hostdev_core.model.address import quoted

if TYPE_CHECKING:
    from hostdev_core.connection import Connection


log = logging.getLogger("hostdev")
_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}", re.A)
_STUB = re.compile(r"[^\s/]{1,64}")
_FLAGS = ("needs_iommu", "takes_usb", "tries_vfio")
_SCHEME = re.compile("[a-z][a-z0-9+.-]{0,63}", re.A)


class DriverTable:
    """Rows of drivers. A scheme belongs to one plugin, which may put several rows under it."""

    def __init__(self) -> None:
        self._rows: list[HostdevDriver] = []
        self._plugins: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[HostdevDriver]:
        return iter(tuple(self._rows))

    @property
    def schemes(self) -> tuple[str, ...]:
        """All URI schemes, in table order."""
        return tuple(dict.fromkeys(scheme for row in self._rows for scheme in row.uri_schemes))

    def register(
        self, rows: "list[HostdevDriver] | tuple[HostdevDriver, ...]", plugin: str
    ) -> None:
        """Add all rows of one plugin or none.

        Raises DriverConflictError when a name is taken or a scheme is another plugin's, PluginError
        when a row is no driver.
        """
        names = {row.name for row in self._rows}
        for row in rows:
            if not isinstance(row, HostdevDriver):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise _no_driver(row, plugin)
            _check_form(row, plugin)
            if row.name in names:
                raise DriverConflictError(
                    f"plugin {plugin} brings driver {row.name!r}, a name that is taken by plugin"
                    f" {self.plugin_of_name(row.name) or plugin}; disable one of them",
                    plugin=plugin,
                )
            names.add(row.name)
            self._check_schemes(row, plugin)
        self._rows += rows
        self._plugins |= {id(row): plugin for row in rows}

    def _check_schemes(self, row: HostdevDriver, plugin: str) -> None:
        for other in self._rows:
            shared = sorted({*row.uri_schemes} & {*other.uri_schemes})
            if shared and self.plugin_of(other) != plugin:
                raise DriverConflictError(
                    f"plugins {self.plugin_of(other)} and {plugin} both claim URI scheme {shared[0]!r};"
                    " disable one of them",
                    plugin=plugin,
                )

    def plugin_of(self, row: HostdevDriver) -> str:
        """The name of the plugin that brought a row."""
        return self._plugins[id(row)]

    def plugin_of_name(self, name: str) -> str | None:
        """The name of the plugin that brought the driver of this name."""
        row = self.find(name)
        return None if row is None else self.plugin_of(row)

    def find(self, name: str) -> HostdevDriver | None:
        """The driver of a name."""
        return next((row for row in self._rows if row.name == name), None)

    def first(self, uri: str) -> HostdevDriver | None:
        """The first row of the URI's scheme; the others are of the same plugin."""
        scheme = uri.partition(":")[0].lower()
        return next((row for row in self._rows if scheme in row.uri_schemes), None)

    def open(self, conn: "Connection", named: str) -> HostdevDriver:
        """Probe the rows of the URI's scheme, in order, until one takes the connection.

        DECLINED goes on to the next; an exception ends the probe. Raises NoDriverError when none
        takes it, OpenError around what is no HostdevError. `named` is the URI for messages.
        """
        scheme = conn.uri.partition(":")[0].lower()
        rows = [row for row in self._rows if scheme in row.uri_schemes]
        for row in rows:
            try:
                result = row.open(conn)
            except (HostdevError, KeyboardInterrupt):  # the latter is a signal's
                raise
            except BaseException as error:
                raise OpenError(
                    f"driver {row.name} failed to open {conn.uri}: {error!r}",
                    driver=row.name,
                    uri=conn.uri,
                ) from error
            if not isinstance(result, OpenResult):  # pyright: ignore[reportUnnecessaryIsInstance]
                method = "open_backend" if hasattr(row, "open_backend") else "open"
                raise PluginError(
                    f"driver {row.name}: {method} answered {result!r:.120}; wanted OpenResult.SUCCESS, or"
                    " OpenResult.DECLINED where the connection is another driver's",
                    plugin=self.plugin_of(row),
                    hook=method,
                )
            if result is OpenResult.SUCCESS:
                return row
        taken = " or ".join(dict.fromkeys(uri for row in rows for uri in row.uris))
        names = " and ".join(row.name for row in rows)
        raise NoDriverError(
            f"{named} is declined by {names}; wanted {taken or 'a URI that the documentation of it names'}"
        )


def close(driver: HostdevDriver, conn: "Connection") -> None:
    """Close a driver; what it raises is logged, as what was done with the connection is done."""
    try:
        answers.ask(driver, "close", lambda: driver.close(conn))
    except HostdevError as error:
        log.error(
            "driver %s: its connection to %s was not closed well: %s", driver.name, conn.uri, error
        )


def _no_driver(row: object, plugin: str) -> PluginError:
    hint = f"; wanted an object of it: {row.__name__}()" if isinstance(row, type) else ""
    return PluginError(
        f"plugin {plugin} brings {quoted(row)}, which is no HostdevDriver{hint}", plugin=plugin
    )


def _check_form(row: HostdevDriver, plugin: str) -> None:
    """Names are shown, typed and recorded: PluginError for one that cannot be, or never be found."""
    name: object = getattr(row, "name", None)
    schemes: object = getattr(row, "uri_schemes", None)
    stubs: object = getattr(row, "stubs", ("none",))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problem = f"has the name {name!r:.80}; wanted one word"
    elif not isinstance(schemes, (tuple, list)) or not all(
        isinstance(scheme, str) and _SCHEME.fullmatch(scheme)
        for scheme in cast("Sequence[object]", schemes)
    ):
        problem = f"has uri_schemes {schemes!r:.80}; wanted a tuple of texts in lower case, like ('qemu',)"
    elif not _are_stubs(stubs):
        problem = f"has stubs {stubs!r:.80}; wanted a tuple of kernel drivers, like ('vfio-pci',)"
    elif not answers.are_texts(row.uris):
        problem = f"has uris {row.uris!r:.80}; wanted a tuple of URIs, like ('qemu:///system',)"
    elif not _are_modules(modules := getattr(row, "stub_modules", {})):
        problem = (
            f"has stub_modules {modules!r:.80}; wanted a module by driver, {{'own-stub': 'own'}}"
        )
    elif wrong := [flag for flag in _FLAGS if not isinstance(getattr(row, flag, True), bool)]:
        problem = f"has {wrong[0]} {getattr(row, wrong[0])!r:.80}; wanted True or False"
    else:
        return
    raise PluginError(f"plugin {plugin}: driver {type(row).__name__} {problem}", plugin=plugin)


def _are_modules(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    pairs = cast("Mapping[object, object]", value).items()
    return all(isinstance(text, str) and text for pair in pairs for text in pair)


def _are_stubs(value: object) -> bool:
    """Whether these may be names of kernel drivers, the default first."""
    return bool(value) and answers.are_all(value, _is_stub)


def _is_stub(name: object) -> bool:
    return isinstance(name, str) and _STUB.fullmatch(name) is not None
