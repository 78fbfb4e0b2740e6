"""The page on polling: its examples run, and its pictures and figures are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kokoon_async import Learned

from .test_readme import ROOT, examples, run_python


PAGE = ROOT / "docs" / "polling.md"
EXAMPLES = list(examples(PAGE))


@pytest.mark.parametrize(
    ("code", "printed"), [pytest.param(code, out, id=str(line)) for line, code, out in EXAMPLES]
)
def test_example_runs(code: str, printed: str | None, tmp_path: Path):
    """An example runs with `python -c`, unchanged, and prints what the page says."""
    done = run_python("-W", "error", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == printed


def test_saved_memory_is_loaded_again(tmp_path: Path):
    """The example that keeps what was learned goes on with what it finds."""
    [code] = [code for _, code, _ in EXAMPLES if "to_json" in code]
    policy = Learned(price=0.1)
    policy.record(1.0, 2.0)
    (tmp_path / "learned.json").write_text(policy.to_json(), "utf-8")
    done = run_python("-c", code, cwd=tmp_path)
    assert done.stdout.endswith("\n6 waits observed\n")


def test_page_has_its_form():
    """The page is short, one sentence stands on a line, and each example says what it prints."""
    text = PAGE.read_text("utf-8")
    assert len(text.splitlines()) <= 190
    assert len(EXAMPLES) == 3
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert re.findall(r"\w\w\. [A-Z].*", prose) == []


def test_links_lead_somewhere():
    """The pictures are where the page looks for them."""
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text("utf-8"))
    assert len(links) >= 2
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_figures_are_a_table_of_the_benchmark():
    """The table has a row for each distribution and price, and all goals are met in it."""
    text = PAGE.read_text("utf-8")
    assert "nox -s bench -- polling" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head, _, *figures = rows[next(i for i, row in enumerate(rows) if "optimum" in row) :][:16]
    hundred = head.index("L100")
    assert len(figures) == 14
    by_name = {row[0]: row for row in figures}
    assert all(float(row[hundred]) <= 1.2 for row in figures[:12])
    assert float(by_name["geometric mean"][hundred]) <= 1.1
