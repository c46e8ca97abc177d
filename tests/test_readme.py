"""The README's Python blocks run as they stand, one after the other, and its commands are commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zeroloss.cli.main import _parser

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    lines = capsys.readouterr().out.split("\n")
    assert 0 < float(re.findall(r"[\d.]+", lines[0])[0]) < 0.1  # the gap at m = 4096
    assert float(lines[1]) > 0  # the rigorous bound
    assert lines[2].endswith("tensor(1., dtype=torch.float64)")  # the step at which every row was classified right
    assert lines[3].startswith("CONVERGED")


@pytest.mark.parametrize("line", re.findall(r"^zeroloss [^#\n]*", TEXT, flags=re.MULTILINE))
def test_commands_parse(line):
    assert _parser().parse_args(line.split()[1:]).command == line.split()[1]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://arxiv.org/") or (ROOT / target).exists(), target
