"""Run a command with the variables of an env file: ``env_file.py FILE COMMAND [ARGUMENT …]``.

The file has ``NAME=value`` lines; blank lines and ``#`` lines are skipped, ``export`` in front and one pair of quotes
around a value are dropped, nothing is expanded. What is set in the environment already wins, also over an empty value.
A missing file is no error. The command takes this process's place, so signals reach it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")


class EnvFileError(ValueError):
    """A line is not ``NAME=value``; the text names file, line and what is allowed, and never a value."""


def parse(text: str, source: str) -> dict[str, str]:
    """Return the variables of an env file. ``source`` names the file in errors. Raises :class:`EnvFileError`."""
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise EnvFileError(f"{source}, line {number}: not a NAME=value line")
        variables[match["name"]] = _unquoted(match["value"])
    return variables


def merged(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the file's variables added where a name is not in it yet."""
    return {**variables, **environ}


def _unquoted(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def main(arguments: list[str]) -> int:
    """Read the file and become the command; returns only if that fails."""
    if len(arguments) < 2:
        print("usage: env_file.py FILE COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    file, command = Path(arguments[0]), arguments[1:]
    try:
        variables = parse(file.read_text(encoding="utf-8-sig"), file.name) if file.exists() else {}
    except (EnvFileError, OSError, UnicodeDecodeError) as exc:
        print(exc, file=sys.stderr)
        return 2
    try:
        os.execvpe(command[0], command, merged(os.environ, variables))
    except OSError as exc:
        print(f"{command[0]}: {exc.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
