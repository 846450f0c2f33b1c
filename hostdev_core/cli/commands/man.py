"""`hostdev man [COMMAND...]`: a manual page, for a person by man(1), else its source."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hostdev_core.cli.manual import every_page, page
from hostdev_core.cli.options import Options
from hostdev_core.cli.output import emit, emit_json, is_terminal


def run(options: Options) -> int:
    """Show or print a page, or write all into a directory."""
    if options.write is not None:
        written = _write(options.write)
        if options.json:
            emit_json({"written": written})
        else:
            emit("\n".join(written))
        return 0
    source = page(options.topic)
    if options.json:
        emit_json({"page": source})
    elif not (is_terminal() and _is_shown(source)):
        emit(source.rstrip("\n"))
    return 0


def _write(folder: str) -> list[str]:
    """Write every page, in place of a former one; return the files."""
    os.makedirs(folder, exist_ok=True)
    written: list[str] = []
    for name, source in every_page().items():
        path = Path(folder, f"{name}.1")
        path.write_text(source, encoding="utf-8")
        written.append(str(path))
    return written


def _is_shown(source: str) -> bool:
    """Show a page by man(1), which asks a pager; False where there is none, or it does not take files.

    Exit code 1 is that of an option that man does not know; what its pager ends with is no matter of ours.
    """
    program = shutil.which("man")
    if program is None:
        return False
    with tempfile.NamedTemporaryFile("w", suffix=".1", encoding="utf-8") as file:
        file.write(source)
        file.flush()
        return subprocess.run([program, "-l", file.name], check=False).returncode != 1
