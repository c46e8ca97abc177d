"""The command line: parse, call the library, print."""

from zeroloss.cli.main import main

__all__ = ["main"]
