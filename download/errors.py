"""Errors of a download.

DownloadError       one line for the operator; ``download.folder.obtain`` turns whatever a source raises into it
"""

from __future__ import annotations


class DownloadError(Exception):
    """A model could not be had, or the command line is wrong."""
