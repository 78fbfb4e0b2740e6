"""What GitHub runs: which sessions, with which rights, and which files it publishes."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
WORKFLOWS = {
    path.stem: path.read_text("utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
# Sessions that show or write something, and check nothing.
FOR_PEOPLE = {"bench", "demo", "faults"}


def jobs_of(workflow: str) -> dict[str, str]:
    """Return the text of each job of a workflow."""
    _, _, jobs = WORKFLOWS[workflow].partition("\njobs:\n")
    parts = re.split(r"^  ([a-z-]+):\n", jobs, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def nox_file() -> ast.Module:
    """Return the noxfile, read and not run."""
    return ast.parse((ROOT / "noxfile.py").read_text("utf-8"))


def test_each_session_is_run_by_a_workflow():
    """What checks anything is run for each change, or at night."""
    sessions = {
        each.name
        for each in nox_file().body
        if isinstance(each, ast.FunctionDef) and "nox.session" in map(name_of, each.decorator_list)
    }
    assert sessions >= {"tests", "chaos", *FOR_PEOPLE}
    every = WORKFLOWS["ci"] + WORKFLOWS["nightly"]
    run = set(re.findall(r"(?:session: |--session \"?)([a-z_]+)", every))
    [listed] = re.findall(r"session: \[(.+)\]", WORKFLOWS["ci"])
    run |= set(listed.split(", "))
    assert sessions - FOR_PEOPLE - run == set()
    nightly = jobs_of("nightly")["sessions"]
    found = set(re.findall(r"- session: ([a-z]+)", nightly))
    assert found == {"audit", "chaos", "fuzz", "heavy", "mutate", "newest", "properties"}


def name_of(decorator: ast.expr) -> str:
    """Return what a decorator is called, without its arguments."""
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def test_each_part_is_mutated_at_night():
    """No part of what `nox -s mutate` knows is forgotten."""
    [parts] = [
        ast.literal_eval(each.value)
        for each in nox_file().body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "MUTATED"
    ]
    found = re.findall(r"session: mutate\n +arguments: ([a-z]+)\n", WORKFLOWS["nightly"])
    assert sorted(found) == sorted(parts)


def test_the_night_has_the_oldest_and_the_newest_python():
    """They are those that the package's metadata name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]
    [lines] = re.findall(r"python-version: \|.*\n((?: +3\.\d+\n)+)", WORKFLOWS["nightly"])
    assert lines.split() == [named[0], named[-1]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_is_used_is_pinned(name: str):
    """Each action is named by its commit, and none gets the rights or the password of another."""
    text = WORKFLOWS[name]
    used = re.findall(r"uses: (\S+)", text)
    assert used
    own = [each for each in used if each.startswith("$/.github/workflows/")]
    assert [each for each in used if not re.search(r"@[0-9a-f]{40}$", each)] == own
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert "\npermissions: {}\n" in text
    assert "secrets." not in text


def test_who_may_sign_runs_nothing():
    """The jobs that can speak for the project only pass on files, and are the only such jobs."""
    jobs = {f"{name}.{job}": text for name in WORKFLOWS for job, text in jobs_of(name).items()}
    may_write = {name: text for name, text in jobs.items() if "write" in text}
    assert set(may_write) == {"release.attest", "release.publish"}
    for text in may_write.values():
        used = {each.rpartition("/")[2] for each in re.findall(r"uses: ([^@]+)@", text)}
        assert used <= {"download-artifact", "attest", "gh-action-pypi-publish"}
        assert "run:" not in text
    assert may_write["release.attest"].count(": write") == 2
    assert may_write["release.publish"].count(": write") == 1


def test_what_is_published_is_what_was_tested():
    """One job builds the files, twice; all others take those that it leaves."""
    uploads = [
        (name, job)
        for name in WORKFLOWS
        for job, text in jobs_of(name).items()
        if re.search(r"upload-artifact@.*\n +with:\n +name: dist\n +path: dist\n", text)
    ]
    assert uploads == [("ci", "build")]
    build, jobs = jobs_of("ci")["build"], jobs_of("release")
    assert "run: nox --session release_check\n" in build
    for text in (*jobs_of("ci").values(), *jobs.values()):
        assert "-m build" not in text
        assert "pip wheel" not in text
    assert "--installpkg dist/*.whl" in jobs_of("ci")["tests"]
    assert "uses: $/.github/workflows/ci.yml" in jobs["ci"]
    needs = {job: re.findall(r"needs: \[?([a-z, ]+)", text) for job, text in jobs.items()}
    assert needs == {"ci": [], "inspect": ["ci"], "attest": ["ci, inspect"], "publish": ["attest"]}
    for job in ("inspect", "attest", "publish"):
        assert re.search(r"download-artifact@.*\n +with:\n +name: dist\n", jobs[job])
