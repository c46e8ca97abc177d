"""``python -m zeroloss_verifier PATH``: the verifier without the rest of zeroloss.

Exit codes: 0 accepted, 1 not accepted, 2 no such file.
"""

from __future__ import annotations

import sys

from zeroloss_verifier import verify


def main(arguments: list[str]) -> int:
    """Verify the one certificate named.

    Returns:
        The exit code.

    Example:
        >>> main([])
        2
    """
    if len(arguments) != 1:
        print("usage: python -m zeroloss_verifier CERTIFICATE.json", file=sys.stderr)
        return 2
    try:
        answer = verify(arguments[0])
    except (OSError, ImportError) as error:
        print(f"zeroloss_verifier: {error}", file=sys.stderr)
        return 2
    print(f"{answer.status}: {answer.reason}")
    for line in answer.covered:
        print(f"  recomputed: {line}")
    return 0 if answer.accepted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
