"""``predict.zip``: build it from a run, and check one without unpacking it."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...errors import ResultError
from ...utils.files import replacing
from ...utils.readers import open_zip
from ..tasks import all_tasks
from ..tasks.spec import Prediction, PredictionContent, SuperbTask
from .prediction_formats import frame_shift

ROOT = "predict"
MAX_ARCHIVE = 50 * 2**20  # the site's form takes less
MAX_MEMBERS, MAX_MEMBER, MAX_TOTAL = 20_000, 2**29, 2**31
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class SubmissionChecks:
    """References to compare a submission with.

    Args:
        any_count: accept other test sets than SUPERB's.
        data: folder of the corpora, whose lists say which items there have to be.
        frame_shift: samples a frame of the upstream, if known.
    """

    any_count: bool = False
    data: Path | None = None
    frame_shift: int | None = None


@dataclass
class SubmissionReport:
    """Content of an archive, and what is wrong with it.

    Args:
        items: entry -> how many utterances, trials or recordings.
        faults: content that the site would refuse, or score wrongly or not at all.
        gaps: tasks and entries that are missing and will not be scored.
        notes: content that the site ignores.
    """

    items: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def raise_for_faults(self, what: Path) -> None:
        """Raise a ResultError with all faults, if there are any."""
        if len(self.faults) == 1:
            raise ResultError(f"{what}: {self.faults[0]}")
        if self.faults:
            raise ResultError(f"{what}: {len(self.faults)} faults", "\n".join(self.faults))

    def text(self) -> str:
        """Format the report as lines."""
        lines = [f"ok       {entry}: {count} items" for entry, count in self.items.items()]
        lines += [f"fault    {fault}" for fault in self.faults]
        lines += [f"missing  {gap}" for gap in self.gaps]
        return "\n".join([*lines, *(f"note     {note}" for note in self.notes)])


def build(
    run: Path, out: Path, checks: SubmissionChecks = SubmissionChecks(), overwrite: bool = False
) -> SubmissionReport:
    """Build a submission from the predictions of a run, and check it before it appears.

    The same predictions give the same bytes.

    Args:
        run: folder of one upstream, with the folder of each task in lower case (``ks``, ``er/fold1``).
        out: the archive.
        checks: what it is compared with.
        overwrite: replace an archive that is there.

    Raises:
        ResultError: there is no prediction, the site would refuse the archive or score it wrongly,
            or ``out`` exists.
    """
    if out.suffix != ".zip":
        raise ResultError(f"{out}: the site takes names that end in .zip only")
    if out.exists() and not overwrite:
        raise ResultError(f"{out}: exists already; choose another place or --overwrite")
    members = dict(_members(run))
    if not members:
        raise ResultError(f"{run}: holds no prediction, looked for {', '.join(_places(run))}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, path in sorted(members.items()):
                entry = zipfile.ZipInfo(f"{ROOT}/{name}", _EPOCH)
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                entry.create_system = 3  # Unix, wherever this runs
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
        report = check(partial, checks)
        report.raise_for_faults(run)
    return report


def _source(run: Path, task: SuperbTask, prediction: Prediction) -> Path:
    return run / task.folder / prediction.part / prediction.source


def _places(run: Path) -> Iterator[str]:
    for task in all_tasks():
        for prediction in task.predictions[:1]:
            yield str(_source(run, task, prediction).relative_to(run))


def _members(run: Path) -> Iterator[tuple[str, Path]]:
    """Yield pairs of an entry below the root and its file on disk."""
    for task in all_tasks():
        for prediction in task.predictions:
            path = _source(run, task, prediction)
            if prediction.files:
                files = sorted(path.glob(prediction.files))
                yield from ((f"{prediction.entry}/{file.name}", file) for file in files)
            elif path.is_file():
                yield prediction.entry, path


def check(path: Path, checks: SubmissionChecks = SubmissionChecks()) -> SubmissionReport:
    """Check an archive from any source: its names, its sizes and every file in it.

    Nothing is read before its size is known to fit: an archive of 10 MB takes less than 2 GB and 20 s.

    Raises:
        ResultError: it cannot be read, or is made so that unpacking it would be dangerous.
    """
    report = SubmissionReport()
    with open_zip(path, ResultError) as archive:
        if path.stat().st_size >= MAX_ARCHIVE:
            report.faults.append(f"is {path.stat().st_size / 2**20:.1f} MiB, allowed: less than 50 MiB")
        entries = _safe(archive)
        scored: set[str] = set()
        for task in all_tasks():
            scored |= _check_task(task, archive, entries, report, checks)
    if not report.items and not report.faults:
        report.faults.append(
            f"holds nothing that the site scores, allowed: {ROOT}/pr_public/predict.ark and so on"
        )
    extra = sorted(set(entries) - scored)
    if extra:
        report.notes.append(f"{len(extra)} files that the site ignores: {', '.join(extra[:3])}")
    return report


def _safe(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files of an archive; refuse dangerous names and sizes."""
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if len(infos) > MAX_MEMBERS or total > MAX_TOTAL:
        message = f"{len(infos)} files of {total / 2**20:.0f} MiB"
        raise ResultError(f"{archive.filename}: holds {message}, allowed: {MAX_MEMBERS} files of 2048 MiB")
    files: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name, mode = info.filename, info.external_attr >> 16
        fault = ""
        if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
            fault = "leads out of the archive"
        elif name.removesuffix("/") != str(PurePosixPath(name)):  # unpacked over a file of the plain name
            fault = f"is another name of {str(PurePosixPath(name))!r}, allowed: the plain one"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            fault = "is a link or a special file"
        elif info.flag_bits & 1:
            fault = "is encrypted"
        elif info.file_size > MAX_MEMBER:
            fault = f"is {info.file_size / 2**20:.0f} MiB, allowed: 512 MiB"
        elif name in files:
            fault = "is there twice"
        if fault:
            raise ResultError(f"{archive.filename}: {name!r} {fault}")
        if not info.is_dir():
            files[name] = info
    return files


class _ArchiveFiles(Mapping[str, bytes]):
    """Files of a prediction in an archive, each read when it is asked for.

    Args:
        archive: the archive.
        entries: name below the prediction -> entry.
    """

    def __init__(self, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        self._archive, self._entries = archive, entries

    def __getitem__(self, name: str) -> bytes:
        return self._archive.read(self._entries[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _check_task(
    task: SuperbTask,
    archive: zipfile.ZipFile,
    entries: Mapping[str, zipfile.ZipInfo],
    report: SubmissionReport,
    checks: SubmissionChecks,
) -> set[str]:
    """Add a task's files to a report; return their names."""
    own: set[str] = set()
    absent = []
    for prediction in task.predictions:
        place = f"{ROOT}/{prediction.entry}"
        names = {"": place} if place in entries else {}
        if prediction.files:
            inside = [name for name in entries if name.startswith(f"{place}/")]
            names = {name.removeprefix(f"{place}/"): name for name in inside}
        if not names:
            absent.append(prediction)
            continue
        own |= set(names.values())
        files = {short: entries[name] for short, name in names.items()}
        content = _check_prediction(prediction, _ArchiveFiles(archive, files), files, checks)
        report.faults += [f"{prediction.entry}: {fault}" for fault in content.faults]
        if not content.faults:
            report.items[prediction.entry] = content.items
    needed = [prediction for prediction in absent if not prediction.optional]
    if task.predictions and not own:
        report.gaps.append(task.name)
    elif needed:
        listed = ", ".join(prediction.entry for prediction in needed)
        if len(task.parts) > 1:
            report.gaps.append(f"{task.name}: {listed}; it is scored only with all {len(task.parts)} parts")
        else:
            report.faults.append(f"{task.name}: {listed} is missing")
    report.gaps += [f"{task.name}: {each.entry} (optional)" for each in absent if each.optional and own]
    return own


def _check_prediction(
    prediction: Prediction,
    files: Mapping[str, bytes],
    entries: Mapping[str, zipfile.ZipInfo],
    checks: SubmissionChecks,
) -> PredictionContent:
    """Check one prediction, unless a file of it is too large to be read."""
    for name, entry in entries.items():
        if entry.file_size > prediction.max_bytes:
            size, most = entry.file_size / 2**20, prediction.max_bytes / 2**20
            subject = f"{name}: " if name else ""
            return PredictionContent(0, (f"{subject}is {size:.1f} MiB, allowed: {most:g} MiB",))
    content = prediction.check(files, checks.any_count, checks.data)
    if prediction.format is frame_shift and checks.frame_shift and not content.faults:
        shift = content.predicted[0].value
        if shift != str(checks.frame_shift):
            fault = f"line 1: frame_shift is {shift}, allowed: {checks.frame_shift}, the upstream's"
            return PredictionContent(0, (fault,))
    return content
