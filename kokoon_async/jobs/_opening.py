"""What may be in the way of a job: nothing that is not a job's own is ever overwritten."""

import zlib
from pathlib import Path

from ..errors import JobError
from ._disk import WrittenFile, remove, write_file
from ._layout import (
    AFRESH,
    JOB_FILE,
    LOCK_FILE,
    SUCCESS_FILE,
    JobSpec,
    PartName,
    Success,
    is_ours,
)


__all__ = ["begin", "check_names", "check_place", "clear", "still_good"]


def check_place(folder: Path, out: Path | None) -> None:
    """
    Refuse an output that cannot be written.

    Args:
        folder: The job's folder.

        out: The joined file; ``None`` if the folder itself is the output.

    Raises:
        JobError: If there is something else already, or no place for it.
    """
    problem = ""
    if out is not None and out.is_dir():
        problem = f"{out} is a folder, but its name says that it shall be a file."
    elif folder.exists() and not folder.is_dir():
        problem = f"{folder} is a file, but a folder is needed there."
    elif not folder.parent.is_dir():
        problem = f"There is no folder {folder.parent} to put {folder.name} into."
    if problem:
        raise JobError(problem, hint="Choose another output.", path=str(out or folder))


def check_names(folder: Path, names: list[str], *, is_fresh: bool) -> None:
    """
    Refuse to start among files that are no job's.

    Raises:
        JobError: It names some of them.
    """
    if JOB_FILE in names and not is_fresh:
        return
    # Files with a dot in front are the system's, and in nobody's way.
    foreign = sorted(name for name in names if not name.startswith(".") and not is_ours(name))
    if foreign:
        shown = ", ".join(map(ascii, foreign[:3]))
        raise JobError(
            f"{folder} holds files that are no job's: {shown:.200}.",
            hint="Choose an empty folder, or one that does not exist yet.",
            path=str(folder),
        )


def clear(folder: Path, names: list[str]) -> list[str]:
    """Remove an earlier job but for its mark, and give the names that are left."""
    kept = (JOB_FILE, LOCK_FILE)
    mine = [name for name in names if is_ours(name) and name not in kept]
    # First what says that all is well.
    mine.sort(key=lambda name: name != SUCCESS_FILE)
    remove(*(folder / name for name in mine))
    return [name for name in kept if name in names]


def begin(folder: Path, names: list[str], spec: JobSpec, out: Path | None) -> None:
    """
    Write down what the job is, unless rows could be lost by it.

    Args:
        folder: The job's folder.

        names: What is in it.

        spec: What the job is.

        out: The joined file; ``None`` if the folder itself is the output.

    Raises:
        JobError: If there are rows already that no job here accounts for.
    """
    if any(PartName.parse(name) for name in names) or SUCCESS_FILE in names:
        raise JobError(
            f"{folder} holds parts of a job, but not what the job was started with"
            f" ({JOB_FILE} is missing).",
            hint=AFRESH,
            path=str(folder),
        )
    is_new = JOB_FILE not in names
    if is_new and out is not None and out.exists() and out.stat().st_size:
        raise JobError(
            f"{out} exists already, and no job that is known here has made it.",
            hint="Move it away, or choose another output.",
            path=str(out),
        )
    content = spec.to_json()
    write_file(folder, lambda file: file.write(content), folder / JOB_FILE)


def still_good(success: Success | None, out: Path | None) -> Success | None:
    """
    Give the note of success, if the joined file is as it was then.

    Raises:
        JobError: If the file was changed, so that writing it again would lose something.
    """
    if success is None or out is None or not out.exists():
        return None
    if _measure(out) != success.output:
        raise JobError(
            f"{out} was changed since the job finished it.",
            hint="Move it away to have it made again, or choose another output.",
            path=str(out),
        )
    return success


def _measure(path: Path) -> WrittenFile:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return WrittenFile(size, f"{crc:08x}")
