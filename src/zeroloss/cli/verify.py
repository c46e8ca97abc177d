"""``zeroloss verify``: what the independent verifier says of a saved certificate."""

from __future__ import annotations

import argparse
import json

from rich.markup import escape

from zeroloss.certificate.verifying import verify
from zeroloss.cli.show import console

COLOURS = {"ACCEPTED": "green", "REJECTED": "red", "TOO_LARGE": "yellow"}


def verify_command(parsed: argparse.Namespace) -> int:
    """Verify one certificate.

    Returns:
        0 where it was accepted, else 1.
    """
    answer = verify(parsed.certificate)
    if parsed.json:
        fields = {"status": answer.status, "accepted": answer.accepted, "reason": answer.reason, "covered": list(answer.covered)}
        print(json.dumps(fields, indent=1))
        return int(not answer.accepted)
    out = console(parsed.json)
    out.print(f"[bold {COLOURS[answer.status]}]{answer.status}[/]: {escape(answer.reason)}")
    for line in answer.covered:
        out.print(f"  recomputed: {escape(line)}")
    return int(not answer.accepted)
