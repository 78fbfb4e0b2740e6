"""What may be in the way of a job: nothing that is not a job's own is ever overwritten."""

import zlib
from collections.abc import Callable, Collection
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


__all__ = ["begin", "check_names", "check_output", "check_place", "clear", "still_good"]

OnBlock = Callable[[], object]
"""Called again and again while a long file is read; what it raises ends the reading."""


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
    elif out is not None and out.exists() and not out.is_file():
        problem = f"{out} is a pipe or a device, which cannot be replaced by a file."
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


def begin(
    folder: Path,
    names: list[str],
    spec: JobSpec,
    out: Path | None,
    *,
    given_up: bool,
    on_block: OnBlock,
) -> list[WrittenFile]:
    """
    Write down what the job is, unless rows could be lost by it.

    Gives what stands in the place of the joined file, which the job will replace.

    Args:
        folder: The job's folder.

        names: What is in it.

        spec: What the job is.

        out: The joined file; ``None`` if the folder itself is the output.

        given_up: Whether *out* was made by an earlier job, which the user gave up.

        on_block: Called while *out* is read.

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
    present = check_output(out, None if given_up else [], on_block)
    content = spec.to_json(present)
    write_file(folder, lambda file: file.write(content), folder / JOB_FILE)
    return present


def check_output(
    out: Path | None, known: Collection[WrittenFile] | None, on_block: OnBlock
) -> list[WrittenFile]:
    """
    Give what stands in the place of the joined file, if it is there.

    Args:
        out: The joined file; ``None`` if there will be none.

        known: What the job accounts for; ``None`` if the user gave it up.

        on_block: Called while *out* is read.

    Raises:
        JobError: If it is neither known nor empty.
    """
    if out is None or not out.exists():
        return []
    present = _measure(out, on_block)
    if known is not None and present.size and present not in known:
        raise JobError(
            f"{out} exists already, and no job that is known here has made it.",
            hint="Move it away, or choose another output.",
            path=str(out),
        )
    return [present]


def still_good(success: Success, out: Path | None, on_block: OnBlock) -> Success | None:
    """
    Give the note of success, if the joined file is as it was then.

    Args:
        success: The note.

        out: The joined file; ``None`` if the folder itself is the output.

        on_block: Called while *out* is read.

    Raises:
        JobError: If the file was changed, so that writing it again would lose something.
    """
    if out is None or not out.exists():
        return None
    if _measure(out, on_block) != success.output:
        raise JobError(
            f"{out} was changed since the job finished it.",
            hint="Move it away to have it made again, or choose another output.",
            path=str(out),
        )
    return success


def _measure(path: Path, on_block: OnBlock) -> WrittenFile:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            on_block()
            size += len(block)
            crc = zlib.crc32(block, crc)
    return WrittenFile(size, f"{crc:08x}")
