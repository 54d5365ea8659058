"""Errors of the tools.

ToolError           one line for the user; exit status 1
└── UsageError      an argument or an input file is wrong: nothing was started; exit status 2
"""

from __future__ import annotations


class ToolError(Exception):
    """The work could not be done."""

    status = 1


class UsageError(ToolError):
    """What was asked for makes no sense; the text names the argument or file, its value and what is allowed."""

    status = 2
