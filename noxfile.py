"""
All tasks of the project: `nox` runs what every change must pass, `nox -l` lists the rest.

Python versions and packages are stated once, in pyproject.toml. What runs the package runs the
built wheel; only ruff and mypy read the working tree.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import zipfile

import nox
from packaging.requirements import Requirement


nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "types", "tests", "coverage"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
# No machine has every Python. Those that are missing are skipped, also where the variable CI is set;
# if none was found at all, the coverage session has nothing to combine and fails.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

ROOT = pathlib.Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
DEPENDENCIES: list[str] = PYPROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

# Without this the working tree, which lies in the current folder, would be tested and not the wheel.
WHEEL_ONLY = {"PYTHONSAFEPATH": "1"}


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy: the package, this file and, where they exist, the typing tests."""
    session.install(*DEPENDENCIES, *EXTRAS["cli"], *group("typing"))
    typing_tests = [name for name in ("tests/typing",) if (ROOT / name).is_dir()]
    session.run("mypy", "--strict", "kokoon_async", "noxfile.py", *typing_tests)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """
    Run the tests against the built wheel and record branch coverage.

    Arguments go to pytest, in place of some workers; `--installpkg FILE` tests that wheel or sdist
    instead of building one.
    """
    erase_coverage()
    # One more than there are processors on small machines, since whole programs wait for real.
    workers = str(max(3, os.cpu_count() or 1))
    pytest_args = install_package(session, "cli,parquet", *group("tests")) or ["-n", workers]
    session.run("coverage", "run", "-m", "pytest", *pytest_args, env=WHEEL_ONLY)


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine the coverage of all Pythons that ran, and fail under 100 % of lines and branches."""
    if not list(ROOT.glob(".coverage.*")):
        session.error("no tests session left any coverage data: was there a Python to run them?")
    session.install(*(name for name in group("tests") if Requirement(name).name == "coverage"))
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[0], reuse_venv=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest version of each dependency that pyproject.toml allows."""
    pins = [lowest_version(name) for name in (*DEPENDENCIES, *EXTRAS["cli"], *EXTRAS["parquet"])]
    pytest_args = install_package(session, "cli,parquet", *pins, *group("tests"))
    session.run("python", "-m", "pytest", *pytest_args, env=WHEEL_ONLY)


@nox.session(python=PYTHONS, reuse_venv=False)
def newest(session: nox.Session) -> None:
    """Run the tests with the newest version of each dependency, pre-releases included."""
    pytest_args = install_package(session, "cli,parquet", *group("tests"))
    session.install("--pre", "--upgrade", *DEPENDENCIES, *EXTRAS["cli"], *EXTRAS["parquet"])
    session.run("python", "-m", "pytest", *pytest_args, env=WHEEL_ONLY)


# What decides about requests, waits and rows, and the tests that have to notice when it errs.
MUTATED = {
    "requests": (
        [
            "_http/protocol.py",
            "_http/retry.py",
            "_http/auth.py",
            "_http/echoes.py",
            "_http/throttle.py",
        ],
        ["protocol", "retry", "auth", "throttle"],
    ),
    "waits": (
        [
            "_waiting/scheduler.py",
            "_waiting/reserve.py",
            "_waiting/waits.py",
            "polling/machine.py",
            "polling/policies.py",
        ],
        ["scheduler", "slices", "machine", "policies"],
    ),
    "polling": (
        ["polling/costs.py", "polling/learned.py", "polling/memory.py", "polling/planning.py"],
        ["costs", "learned", "memory", "planning"],
    ),
    "jobs": (
        ["jobs/_*.py"],
        [
            "jobs",
            "jobs_cancel",
            "jobs_disk",
            "jobs_folder",
            "jobs_formats",
            "jobs_input",
            "jobs_outage",
            "jobs_poison",
            "jobs_report",
            "jobs_settling",
            "jobs_stdout",
        ],
    ),
}


@nox.session
def mutate(session: nox.Session) -> None:
    """
    Change the code in many small ways and count the changes that no test notices.

    Runs all parts of MUTATED, or only `-- PART…`; lists what survived. Fails under 90 %.
    """
    session.install("mutmut>=3.8", "-e", ".[cli,parquet]", *group("tests"))
    scores = {part: mutate_part(session, part) for part in session.posargs or MUTATED}
    for part, (killed, total) in scores.items():
        session.log(f"{part}: {killed} of {total} mutants killed, {killed / total:.1%}")
    if any(killed < 0.9 * total for killed, total in scores.values()):
        session.error("too many mutants survived")


def mutate_part(session: nox.Session, part: str) -> tuple[int, int]:
    """Mutate one part in a copy of the tree; return how many mutants were killed, of how many."""
    modules, tests = MUTATED[part]
    selected = [f"tests/test_{name}.py" for name in tests]
    tree = pathlib.Path(session.create_tmp()) / part
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "dist"))
    settings = {
        "source_paths": ["kokoon_async"],
        "process_isolation": "forkserver",  # each mutant finds the tests imported already
        "only_mutate": [f"kokoon_async/{module}" for module in modules],
        "also_copy": ["README.md", "CHANGELOG.md", "docs", "benchmarks", "noxfile.py"],
        "pytest_add_cli_args_test_selection": selected,
        "pytest_add_cli_args": [
            *("-p", "tests.quickest_first", "-p", "no:randomly", "-p", "no:cacheprovider"),
            "--timeout=15",
        ],
    }
    table = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    with (tree / "pyproject.toml").open("a") as project:
        project.write(f"\n[tool.mutmut]\n{table}")
    with session.chdir(tree):
        session.run("python", "tests/stable_names.py", *selected)
        # Some mutants wait for what never comes; meanwhile others have the processor.
        workers = 2 * (os.cpu_count() or 1)
        environment = {"PYTHONPATH": str(tree / "tests")}  # quickest_first
        session.run("mutmut", "run", "--max-children", str(workers), env=environment, silent=True)
        session.run("mutmut", "results")
        session.run("mutmut", "export-cicd-stats", silent=True)
    seen = json.loads((tree / "mutants" / "mutmut-cicd-stats.json").read_text("utf-8"))
    return seen["killed"] + seen["timeout"], seen["total"]


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Write docs/faults.md anew, from the catalogue of faults and the tests' marks."""
    session.run(sys.executable, str(ROOT / "tests" / "fault_catalogue.py"))


@nox.session
def bench(session: nox.Session) -> None:
    """Run all benchmarks, or only `-- NAME`; what follows the name goes to that script."""
    name, *args = session.posargs or ["*"]
    scripts = [
        path
        for path in sorted((ROOT / "benchmarks").glob(f"{name}.py"))
        if "__main__" in path.read_text("utf-8")  # the others are parts of these
    ]
    if not scripts:
        session.error(f"benchmarks/{name}.py is no script to run")
    install_package(session, "cli", *group("bench"))
    for script in scripts:
        session.run("python", str(script), *args)


@nox.session(python=PYTHONS[0])
def heavy(session: nox.Session) -> None:
    """Run the tests that take minutes, and nothing else; arguments go to pytest."""
    pytest_args = install_package(session, "cli,parquet", *group("tests"))
    environment = {**WHEEL_ONLY, "KOKOON_HEAVY": "1"}
    session.run("python", "-m", "pytest", "-m", "heavy", *pytest_args, env=environment)


@nox.session(python=PYTHONS[0])
def properties(session: nox.Session) -> None:
    """Try each property with 200 examples and machines with 50 steps; arguments go to pytest."""
    pytest_args = install_package(session, "cli,parquet", *group("tests"))
    environment = {**WHEEL_ONLY, "HYPOTHESIS_PROFILE": "goal"}
    options = ["-m", "hypothesis", "--timeout", "0"]
    session.run("python", "-m", "pytest", *options, *pytest_args, env=environment)


@nox.session
def chaos(session: nox.Session) -> None:
    """Live through 1,000 random bad days and print the figures; `-- --seeds N --first N`."""
    run_from_tests(session, "chaos")


@nox.session(python=PYTHONS[0])
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads foreign bytes; `-- --executions N --seconds N [TARGET …]`, for each target."""
    session.install(*group("fuzz"))
    run_from_tests(session, "fuzz", extra="cli,parquet")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo from the built wheel; arguments go to `kokoon-async demo`."""
    install_package(session, "cli")
    session.run("kokoon-async", "demo", *session.posargs, env=WHEEL_ONLY)


@nox.session
def release_check(session: nox.Session) -> None:
    """
    Build twice and compare; check contents and metadata; install and import the wheel alone.

    Leaves the very files that passed in dist/, and nothing else, to be tested and published.
    """
    session.install("build", "check-wheel-contents", "twine", "virtualenv")
    work = pathlib.Path(session.create_tmp())
    # The wheel of the first build comes from the sdist, that of the second from the tree: if they
    # are the same, then the sdist also has everything that the package needs.
    first = build_twice(session, work)
    session.run("twine", "check", "--strict", *map(str, first))
    wheel = next(path for path in first if path.suffix == ".whl")
    session.run("check-wheel-contents", str(wheel))
    check_names(session, wheel)
    python = install_alone(session, str(wheel), work / "clean")
    session.run(python, "-m", "pip", "check", external=True)
    check = "import kokoon_async; print('imported', kokoon_async.__version__)"
    session.run(python, "-W", "error", "-X", "dev", "-c", check, external=True, env=WHEEL_ONLY)
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    (ROOT / "dist").mkdir()
    for path in first:
        session.log(f"in dist/: {shutil.copy2(path, ROOT / 'dist')}")


@nox.session
def audit(session: nox.Session) -> None:
    """
    Look for known weaknesses: in the workflows, in what an installation consists of, in the bounds.

    `-- --offline` leaves out what needs the service that knows the advisories.
    """
    session.install("cyclonedx-bom", "pip-audit", "virtualenv", "zizmor")
    session.run("zizmor", "--offline", "--persona", "pedantic", str(ROOT / ".github" / "workflows"))
    work = pathlib.Path(session.create_tmp())
    python = install_alone(session, f"{build_wheel(session)}[cli,parquet]", work / "whole")
    tools = ("setuptools", "wheel", "pip")  # of the environment, not of the installation
    session.run(python, "-m", "pip", "uninstall", "--quiet", "--yes", *tools, external=True)
    bill = work / "sbom.json"
    session.run("cyclonedx-py", "environment", "--output-file", str(bill), python)
    components = json.loads(bill.read_text("utf-8"))["components"]
    session.log(f"an installation with all extras has {len(components)} components, see {bill}")
    installed = [f"{each['name']}=={each['version']}" for each in components]
    ours = PYPROJECT["project"]["name"]
    if "--offline" in session.posargs:
        session.warn("NOT AUDITED: the advisories were left out, as --offline asks for")
        return
    pins = [lowest_version(name) for name in (*DEPENDENCIES, *EXTRAS["cli"], *EXTRAS["parquet"])]
    check_advisories(session, work, [name for name in installed if not name.startswith(ours)])
    check_advisories(session, work, pins)


def run_from_tests(session: nox.Session, name: str, extra: str = "cli") -> None:
    """Run a module of the tests as a program, with the built wheel and an extra."""
    args = install_package(session, extra, *group("tests"))
    # Behind what is installed, so that the wheel is tested and not the working tree.
    program = f"import runpy, sys; sys.path.append({str(ROOT)!r});"
    program += f"runpy.run_module('tests.{name}', run_name='__main__')"
    session.run("python", "-c", program, *args, env=WHEEL_ONLY)


def group(name: str) -> tuple[str, ...]:
    """Return the packages of a dependency group, those of the groups that it includes as well."""
    return nox.project.dependency_groups(PYPROJECT, name)


def lowest_version(requirement: str) -> str:
    """Turn `name>=1.2` into `name==1.2`."""
    parsed = Requirement(requirement)
    (bound,) = [spec.version for spec in parsed.specifier if spec.operator == ">="]
    return f"{parsed.name}=={bound}"


@functools.cache
def erase_coverage() -> None:
    """Remove the data of earlier runs, once for all Pythons, so that they cannot fill a gap."""
    for path in ROOT.glob(".coverage*"):
        path.unlink()


def install_package(session: nox.Session, extra: str, *others: str) -> list[str]:
    """
    Install the package with an extra and with other packages: the built wheel, or `--installpkg`.

    Returns:
        The arguments of the session that are not about the package to install.
    """
    args = list(session.posargs)
    if "--installpkg" in args:
        where = args.index("--installpkg")
        package = str(pathlib.Path(args[where + 1]).resolve())
        del args[where : where + 2]
    else:
        package = build_wheel(session)
    # An environment that is used again may hold an older build of the same version, which pip would
    # keep.
    session.install("--force-reinstall", "--no-deps", package)
    session.install(f"{package}[{extra}]", *others)
    return args


def build_wheel(session: nox.Session) -> str:
    """Build the wheel from the working tree and return where it is."""
    folder = pathlib.Path(session.cache_dir)
    session.run_install(
        "python", "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", str(ROOT)
    )
    return str(max(folder.glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime))


def build_twice(session: nox.Session, work: pathlib.Path) -> list[pathlib.Path]:
    """Build sdist and wheel in two ways, fail if they differ, and return the first two."""
    builds = []
    for number, formats in enumerate(((), ("--sdist", "--wheel"))):
        folder = work / f"dist-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        session.run(
            "python", "-m", "build", "--outdir", str(folder), *formats, str(ROOT),
            env={"SOURCE_DATE_EPOCH": "1767225600"}, silent=True,
        )  # fmt: skip
        builds.append(sorted(folder.iterdir()))
    first, second = ({path.name: digest(path) for path in build} for build in builds)
    if first != second:
        session.error(f"two builds differ: {first} and {second}")
    session.log(f"two builds are the same: {first}")
    return builds[0]


def check_names(session: nox.Session, wheel: pathlib.Path) -> None:
    """Fail if a wheel holds anything but the package's modules, its mark of types and metadata."""
    names = zipfile.ZipFile(wheel).namelist()
    proper = re.compile(r"kokoon_async/([a-z_]+/)*([a-z_]+\.py|py\.typed)|kokoon_async-[^/]+/.+")
    strange = [name for name in names if not proper.fullmatch(name)]
    if strange:
        session.error(f"the wheel holds what it should not: {strange}")
    session.log(f"the wheel holds {len(names)} files, all of them proper")


def install_alone(session: nox.Session, package: str, folder: pathlib.Path) -> str:
    """Install a package into an empty environment, and return that environment's Python."""
    session.run("python", "-m", "virtualenv", "--clear", "--quiet", str(folder))
    python = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "--quiet", package, external=True)
    return python


def check_advisories(session: nox.Session, work: pathlib.Path, pins: list[str]) -> None:
    """Fail if there is an advisory against one of the pinned packages, or if nobody could tell."""
    file = work / "pins.txt"
    file.write_text("\n".join(pins), "utf-8")
    said = session.run(
        *("pip-audit", "--no-deps", "--disable-pip", "--format=json", "--requirement", str(file)),
        silent=True, success_codes=[0, 1],
    )  # fmt: skip
    report = re.search(r"^\{.*", str(said), re.MULTILINE)
    answers = json.loads(report[0])["dependencies"] if report else []
    # It calls what its service does not know "skipped", and is content.
    known = [each for each in answers if "vulns" in each]
    if len(known) < len(pins):
        session.error(
            f"NOT AUDITED: pip-audit had an answer for {len(known)} of {len(pins)} packages only;"
            f" without its service, use `nox -s audit -- --offline`. It said: {str(said)[-500:]}"
        )
    found = [each for each in known if each["vulns"]]
    if found:
        session.error(f"there are advisories: {json.dumps(found, indent=1)}")
    session.log(f"no advisory against any of {len(pins)} packages")


def digest(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
