"""The small files of a job, `_job.json` and `_SUCCESS`, cut at any byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kokoon_async.errors import JobError
from kokoon_async.jobs._disk import WrittenFile
from kokoon_async.jobs._layout import JobSpec, Success
from kokoon_async.jobs._report import Tally


SPEC = JobSpec("jsonl", 1000, wait=False, base_url="https://host/v3")
TALLY = Tally({"image": 2, "failed": 1}, {"completed": 2})
SUCCESS = Success(TALLY, 1, 0, "digest", WrittenFile(1, "00000000"))

FILES: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "_job.json": (SPEC.to_json(), SPEC.check),
    "_SUCCESS": (SUCCESS.to_json(), Success.read),
}


@pytest.mark.fault("F-96")
@pytest.mark.parametrize("name", FILES)
def test_a_small_file_cut_at_any_byte(tmp_path: Path, name: str) -> None:
    """However much of it is left, if not all: an error, and never a new start."""
    whole, read = FILES[name]
    path = tmp_path / name
    path.write_bytes(whole)
    assert read(path) == (SUCCESS if name == "_SUCCESS" else [])
    for size in range(len(whole.rstrip())):
        path.write_bytes(whole[:size])
        with pytest.raises(JobError, match="is damaged: it is not what kokoon-async wrote"):
            read(path)
        assert path.read_bytes() == whole[:size]
