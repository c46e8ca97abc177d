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
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    lines = capsys.readouterr().out.split("\n")
    assert 0 < float(re.findall(r"[\d.]+", lines[0])[0]) < 0.1  # the gap at m = 4096
    assert float(lines[1]) > 0  # the rigorous bound
    assert float(lines[2].split()[-1]) < 1e-9  # the error of an entry
    assert float(lines[3]) > 0  # the kernel that is meant is positive definite, provably
    assert any(
        line.endswith("tensor(1., dtype=torch.float64)") for line in lines
    )  # a step at which every row was classified right
    assert any(line.startswith("CONVERGED") for line in lines)
    assert any("Step too large" in line for line in lines)  # the diagnosis of a step of 0.5
    assert 0.97 < float(lines[-2]) < 1.03  # the edge of stability


@pytest.mark.parametrize("line", re.findall(r"^zeroloss [^#\n]*", TEXT, flags=re.MULTILINE))
def test_commands_parse(line):
    assert _parser().parse_args(line.split()[1:]).command == line.split()[1]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://arxiv.org/") or (ROOT / target).exists(), target
