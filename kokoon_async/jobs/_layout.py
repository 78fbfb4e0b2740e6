"""
What lies where in a job's folder, and what its small files say.

======================  ================================================================
``part-…``              the rows of one finished shard; all of them are the checkpoint
``_job.json``           what the job was started with
``_SUCCESS``            the counts, once everything is there
``_lock``               held while a process works on the job
``_part-….damaged``     a part that somebody changed, put aside
``_tmp-…``, ``_seen-…``  unfinished, left by a killed process; removed by the next one
======================  ================================================================

All names but the parts' begin with an underscore: pandas, pyarrow and others then take
the folder for a dataset of its parts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from ..errors import JobError
from ._disk import TEMPORARY, WrittenFile
from ._report import Tally
from ._rows import RETRYABLE
from ._shards import Shard


__all__ = [
    "AFRESH",
    "JOB_FILE",
    "LOCK_FILE",
    "SUCCESS_FILE",
    "FoundPart",
    "JobSpec",
    "Outcomes",
    "PartName",
    "Success",
    "has_output",
    "is_leftover",
    "is_ours",
    "read_json",
    "seen_path",
]

JOB_FILE = "_job.json"
LOCK_FILE = "_lock"
SUCCESS_FILE = "_SUCCESS"

AFRESH = "Start afresh (resume=False, or --fresh), or choose another output."
"""What to do about a folder that cannot be resumed."""

Outcomes = Sequence[tuple[str, str | None]]
"""The outcome and the state of each row of a part."""

_VERSION = 1
_SEEN = "_seen-"
_LEFTOVER = re.compile(f"(?:{TEMPORARY}|{_SEEN})[0-9a-f]{{16}}")
_DAMAGED = ".damaged"
_SUCCESS_KINDS = {
    "outcomes": dict,
    "states": dict,
    "shards": int,
    "duplicates": int,
    "digest": str,
    "output": dict,
}
_PART = re.compile(r"part-([0-9]{6,18})-([0-9a-f]{16})-([0-9a-f]{8})\.([a-z]+)")


@attrs.frozen
class PartName:
    """
    Read and write the name of a part.

    Attributes:
        index: The shard's place in the job.

        digest: The shard's digest of its ids.

        crc32: Of the file's content.

        suffix: The format's name.
    """

    index: int
    digest: str
    crc32: str
    suffix: str

    @classmethod
    def parse(cls, name: str) -> "PartName | None":
        """Read a file's name; ``None`` if it is no part."""
        found = _PART.fullmatch(name)
        return found and cls(int(found[1]), found[2], found[3], found[4])

    @classmethod
    def of(cls, shard: Shard, written: WrittenFile, suffix: str) -> "PartName":
        """Make the name of a part that was just written."""
        return cls(shard.index, shard.digest, written.crc32, suffix)

    def __str__(self) -> str:
        return f"part-{self.index:06d}-{self.digest}-{self.crc32}.{self.suffix}"

    @property
    def when_damaged(self) -> str:
        """The name under which a damaged part is put aside."""
        return f"_{self}{_DAMAGED}"


@attrs.frozen
class FoundPart:
    """
    Hold what a finished part says.

    Attributes:
        path: The part.

        content: Its bytes.

        outcomes: The outcome and the state of each row.
    """

    path: Path
    content: bytes
    outcomes: Outcomes

    @property
    def retryable(self) -> list[int]:
        """The positions of the rows that another run may do better with."""
        return [place for place, (kind, _) in enumerate(self.outcomes) if kind in RETRYABLE]

    @property
    def answered(self) -> int | None:
        """The position of a row that has a record; ``None`` if there is none."""
        kinds = (place for place, (kind, _) in enumerate(self.outcomes) if kind == "image")
        return next(kinds, None)


def is_leftover(name: str) -> bool:
    """Tell whether a file is of no use once its process is gone."""
    return _LEFTOVER.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Tell whether a file in a job's folder was made by a job."""
    return (
        name in (JOB_FILE, LOCK_FILE, SUCCESS_FILE)
        or is_leftover(name)
        or PartName.parse(name) is not None
        or PartName.parse(name.removeprefix("_").removesuffix(_DAMAGED)) is not None
    )


def seen_path(folder: Path, token: str) -> Path:
    """Give the path of the set of ids that were seen."""
    return folder / f"{_SEEN}{token}"


def read_json(path: Path, kinds: Mapping[str, type]) -> dict[str, Any] | None:
    """
    Read one of a job's small files; ``None`` if it is not there.

    Args:
        path: The file.

        kinds: What must be in it, and of which class.

    Raises:
        JobError: If it is not what this version would have written.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError:
        content = None
    version = content.get("version") if type(content) is dict else None
    if type(version) is int and version > _VERSION:
        raise JobError(
            f"{path} was written by a newer version of kokoon-async.",
            hint="Upgrade kokoon-async, or choose another output.",
            path=str(path),
        )
    if version != _VERSION or not all(
        isinstance(content.get(name), kind) for name, kind in kinds.items()
    ):
        raise _damaged(path)
    return dict(content)


def has_output(path: Path) -> bool:
    """Tell whether a job has made its joined file, or may have: its note may be damaged."""
    try:
        earlier = read_json(path, {"outputs": list})
    except JobError:
        return True
    outputs = [] if earlier is None else earlier["outputs"]
    return any(type(output) is dict and output.get("size") for output in outputs)


def _damaged(path: Path) -> JobError:
    return JobError(
        f"{path} is damaged: it is not what kokoon-async wrote.", hint=AFRESH, path=str(path)
    )


@attrs.frozen
class JobSpec:
    """
    Hold what must be the same when a job is resumed.

    Attributes:
        format: The format's name.

        shard_size: How many ids make a shard.

        wait: Whether images are waited for.

        base_url: The API's address.
    """

    format: str
    shard_size: int
    wait: bool
    base_url: str

    def to_json(self, outputs: Iterable[WrittenFile] = ()) -> bytes:
        """
        Write it as JSON.

        Args:
            outputs: What the job may find in the place of the joined file, and replace.
        """
        known = [attrs.asdict(output) for output in outputs]
        return orjson.dumps({"version": _VERSION, **attrs.asdict(self), "outputs": known})

    def check(self, path: Path) -> list[WrittenFile] | None:
        """
        Compare with the job in a folder, and give the *outputs* that it was written with.

        ``None`` if there is no job yet.

        Raises:
            JobError: If that one is another, or cannot be read.
        """
        fields = attrs.asdict(self)
        kinds = {name: type(value) for name, value in fields.items()}
        earlier = read_json(path, {**kinds, "outputs": list})
        if earlier is None:
            return None
        differences = [
            f"{name} {earlier[name]!r}, now {value!r}"
            for name, value in fields.items()
            if earlier[name] != value
        ]
        if differences:
            raise JobError(
                f"{path.parent} holds a job that was started with {'; '.join(differences)}.",
                hint=f"Use the same settings to resume it. {AFRESH}",
                path=str(path.parent),
            )
        found = [output for output in earlier["outputs"] if type(output) is dict]
        return [WrittenFile(output.get("size", -1), output.get("crc32", "")) for output in found]


@attrs.frozen
class Success:
    """
    Hold what is written down when a job is finished.

    Attributes:
        tally: What became of the ids.

        shards: How many there are.

        duplicates: How many positions of the input held an id that came before.

        digest: What tells the input from another.

        output: The joined file, as it was written; ``None`` for a folder of parts.
    """

    tally: Tally
    shards: int
    duplicates: int
    digest: str
    output: WrittenFile | None

    def to_json(self) -> bytes:
        """Write it as JSON."""
        content = {
            "version": _VERSION,
            "ids": self.tally.ids,
            "outcomes": self.tally.outcomes,
            "states": self.tally.states,
            "shards": self.shards,
            "duplicates": self.duplicates,
            "digest": self.digest,
            "output": {} if self.output is None else attrs.asdict(self.output),
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def read(cls, path: Path) -> "Success | None":
        """
        Read it; ``None`` if the job is not finished.

        Raises:
            JobError: If it cannot be read.
        """
        content = read_json(path, _SUCCESS_KINDS)
        if content is None:
            return None
        output = content["output"]
        counts = [*content["outcomes"].values(), *content["states"].values()]
        counts += [output.get("size")] if output else []
        if not all(type(count) is int and count >= 0 for count in counts):
            raise _damaged(path)
        return cls(
            Tally(content["outcomes"], content["states"]),
            content["shards"],
            content["duplicates"],
            content["digest"],
            WrittenFile(output["size"], str(output.get("crc32"))) if output else None,
        )
