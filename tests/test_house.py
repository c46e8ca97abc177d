"""The house rules that no linter checks: short files, a frozen public face, documented symbols."""

from __future__ import annotations

from pathlib import Path

import zeroloss

ROOT = Path(__file__).parents[1]
FACE = {
    "ArgumentError", "CLAIMS", "Certificate", "Claim", "Dataset", "Diagnosis", "FileError", "Polished", "Probe", "Study",
    "Trajectory", "Verdict", "Verified", "ZerolossError", "certify", "check", "cnn", "conv_resnet", "descend", "diagnose",
    "extremes", "fully_connected", "gram", "limit_kernel", "load", "polish", "predict", "predict_descent", "resnet",
    "run_study", "stability_edge", "verify", "write_report",
}  # fmt: skip


def test_no_file_over_400_lines():
    files = [
        p for folder in ("src", "tests", "bench") for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".html", ".css")
    ]
    assert len(files) > 40
    assert {str(p): n for p in files if (n := len(p.read_text().splitlines())) > 400} == {}


def test_the_public_face_changes_only_on_purpose():
    assert set(zeroloss.__all__) == FACE
    assert all(getattr(zeroloss, name).__doc__ for name in FACE - {"CLAIMS"})
    assert len(zeroloss.__all__) <= 40


def test_versions_agree():
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{zeroloss.__version__}"' in text


def test_importing_is_light():
    """Figures and templates load when a report is written, not when somebody computes a kernel."""
    import subprocess
    import sys

    code = "import sys, zeroloss; print([m for m in ('matplotlib', 'jinja2', 'sklearn', 'scipy.optimize') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
