"""Jobs on disk: what was accepted is still there after a kill at any instruction.

A folder holds `jobs.sqlite`, which says what becomes of each job, and for each job a folder with its request
and its finished frames as files. A file is whole before a row speaks of it. A request and its row are on the
disk itself before `add` returns. What comes later is in the system's hands, which a killed process doesn't
take away; a power failure may, and then the job is made again, as is a frame whose checksum is wrong.

Should the database be damaged it is set aside, and made anew from the requests and endings beside it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from shared.sentences import SentenceError

from . import ServerError
from .locking import LockedFolder

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    client BLOB NOT NULL,
    id TEXT NOT NULL,
    engine TEXT NOT NULL,
    digest BLOB NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'ended')),
    deaths INTEGER NOT NULL DEFAULT 0,
    changed REAL NOT NULL,
    about BLOB NOT NULL DEFAULT x'80',
    server_deaths INTEGER NOT NULL DEFAULT 0,
    UNIQUE (client, id)
);
CREATE TABLE frames (
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    "index" INTEGER NOT NULL,
    size INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (job, "index")
) WITHOUT ROWID;
"""
SINCE_1 = """
ALTER TABLE jobs ADD COLUMN about BLOB NOT NULL DEFAULT x'80';
ALTER TABLE jobs ADD COLUMN server_deaths INTEGER NOT NULL DEFAULT 0;
"""
"""What a list of version 1 lacks; x'80' is msgpack's empty table."""
REQUEST, ENDING = "request", "ending"
ENOUGH = 8 << 20
"""Bytes of frames that are read at once."""


class StoreFull(SentenceError):
    """There is no room for another job. Its text is one sentence for the user."""


@dataclass(frozen=True)
class StoredJob:
    """A job as the store has it. `frames` are there from the first one on, without a gap; `deaths` counts the
    workers that ended while they ran it; `about` is what was to be remembered of its request."""

    number: int
    client: bytes
    id: str
    engine: str
    digest: bytes
    size: int
    state: str
    deaths: int
    frames: int
    changed: float
    about: Mapping[str, Any]


class JobStore:
    """Only one process at a time has a store open, and in it one thread.

    Args:
        folder: made when missing, for this user alone.
        quota_bytes: of requests and frames together; beyond it no new job is taken.

    Raises `ServerError` for a folder that can't be used, or is in use.
    """

    def __init__(self, folder: Path, quota_bytes: int):
        self.folder, self.quota_bytes = folder, quota_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.name == "posix":
                folder.chmod(0o700)  # also one that was there
            self._lock = LockedFolder(folder)
        except OSError as error:
            raise ServerError(
                "Jobs can't be kept in {folder} ({reason}); name another folder with --jobs.",
                folder=folder,
                reason=error.strerror,
            ) from error
        self._folders: dict[int, Path] = {}
        """Of the jobs that were spoken of, by their numbers."""
        try:
            self._database = self._open()
            self._remove_leavings()
            self.bytes = self._count_bytes()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, (OSError, sqlite3.Error)):
                raise ServerError(
                    "The jobs in {folder} can't be read ({error}); name another folder with --jobs.",
                    folder=folder,
                    error=error,
                ) from error
            raise

    # What becomes of a job

    def add(
        self, client: bytes, id: str, engine: str, parts: Sequence, about: Mapping[str, Any] | None = None
    ) -> StoredJob:
        """Keep a new job, waiting. When this returns it is on the disk. `about` may hold what msgpack can.
        Raises `StoreFull`."""
        about = {"submitted": time.time(), **(about or {})}
        head = {"client": client, "id": id, "engine": engine, "about": about}
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(map(len, views))
        if self.bytes + size > self.quota_bytes:
            raise StoreFull(
                "The server keeps {kept:.1f} GiB of jobs, and {most:.1f} is the most it may; wait until some "
                "are done.",
                kept=self.bytes / 2**30,
                most=self.quota_bytes / 2**30,
            )
        digest = content_digest(views)
        folder = self._folder(client, id)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _write_file(folder / REQUEST, _packed(msgpack.packb(head), views), durable=True)
            _sync_folder(self.folder)
            with self._transaction(durable=True):
                self._database.execute(
                    "INSERT INTO jobs (client, id, engine, digest, size, state, changed, about)"
                    " VALUES (?, ?, ?, ?, ?, 'waiting', ?, ?)",
                    (client, id, engine, digest, size, time.time(), msgpack.packb(about)),
                )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoreFull(
                "The server can't keep this job ({reason}); try again in a few seconds."
                if is_scarcity(error)
                else "The server can't keep this job ({reason}); free some disk space there.",
                reason=error.strerror,
            ) from error
        self.bytes += size
        (job,) = self._select("WHERE client = ? AND id = ?", client, id)
        return job

    def make_room(self, size: int) -> list[StoredJob]:
        """Drop what is in the way of a request of so many bytes, and say what that was; nothing where all of
        it would not be enough."""
        found, dropped = self.in_the_way(size), []
        freed = sum(self._frame_bytes(job.number) for job in found)
        if self.bytes - freed + size > self.quota_bytes:
            return []
        for job in found:
            try:
                self.forget(job.number)
            except OSError as error:
                log.error("Job %r can't be dropped for now: %s", job.id, error)
                break
            dropped.append(job)
        return dropped

    def begin(self, number: int) -> list[bytes]:
        """A job runs from now on; gives the parts of its request. Raises as `request` does."""
        parts = self.request(number)
        try:
            self.set_state(number, "running")
        except OSError as error:  # a full disk: should this server be killed, the next one makes it once more
            log.warning("That job %d runs can't be kept: %s", number, error)
        return parts

    def job(self, number: int) -> StoredJob:
        (job,) = self._select("WHERE jobs.number = ?", number)
        return job

    def find(self, client: bytes, id: str) -> StoredJob | None:
        return next(iter(self._select("WHERE client = ? AND id = ?", client, id)), None)

    def jobs(self) -> list[StoredJob]:
        """All there are, in the order in which they were accepted."""
        return self._select("")

    def set_state(self, number: int, state: str) -> None:
        """Say that a job waits or runs."""
        with self._transaction():
            self._database.execute(
                "UPDATE jobs SET state = ?, changed = ? WHERE number = ?", (state, time.time(), number)
            )

    def count_death(self, number: int, of: str = "worker") -> int:
        """Note that a worker, or the "server", ended while it ran a job, which waits again; returns how often
        that happened."""
        column = {"worker": "deaths", "server": "server_deaths"}[of]
        with self._transaction():
            self._database.execute(
                f"UPDATE jobs SET state = 'waiting', {column} = {column} + 1 WHERE number = ?", (number,)
            )
            (count,) = self._database.execute(
                f"SELECT {column} FROM jobs WHERE number = ?", (number,)
            ).fetchone()
        return count

    def end(self, number: int, parts: Sequence) -> None:
        """Keep a job's last message; the request is not needed any more."""
        job = self.job(number)
        folder = self._folder(job.client, job.id)
        views = [memoryview(part).cast("B") for part in parts]
        head = {"client": job.client, "id": job.id, "engine": job.engine, "about": job.about}
        _write_file(folder / ENDING, _packed(msgpack.packb(head), views), durable=True)
        self.set_state(number, "ended")
        if job.state != "ended":
            self.bytes -= job.size
        (folder / REQUEST).unlink(missing_ok=True)

    def forget(self, number: int) -> None:
        """Drop a job with all that belongs to it, if it is there: its client has everything. Raises
        `OSError`."""
        if (folder := self._folder_of(number)) is None:
            return
        freed = self._frame_bytes(number)
        with self._transaction():
            rows = self._database.execute(
                "DELETE FROM jobs WHERE number = ? RETURNING CASE state WHEN 'ended' THEN 0 ELSE size END",
                (number,),
            ).fetchall()
        self.bytes -= sum(size for (size,) in rows) + freed
        del self._folders[number]
        shutil.rmtree(folder, ignore_errors=True)

    def in_the_way(self, size: int) -> list[StoredJob]:
        """What ended longest ago, and would have to be dropped for a request of so many bytes to have
        room."""
        found, missing = [], self.bytes + size - self.quota_bytes
        ended = self._select("WHERE state = 'ended'") if missing > 0 else []
        for job in sorted(ended, key=lambda job: job.changed):
            if missing <= 0:
                break
            found.append(job)
            missing -= self._frame_bytes(job.number)
        return found

    # What belongs to it

    def request(self, number: int) -> list[bytes]:
        """The parts of its request, as they came. Raises `OSError` or `ValueError` where they are damaged."""
        job = self.job(number)
        _, parts = _unpacked((self._folder(job.client, job.id) / REQUEST).read_bytes())
        if content_digest(parts) != job.digest:
            raise ValueError("its file is damaged")
        return parts

    def ending(self, number: int) -> list[bytes]:
        """The parts of its last message."""
        job = self.job(number)
        return _unpacked((self._folder(job.client, job.id) / ENDING).read_bytes())[1]

    def add_frame(self, number: int, index: int, parts: Sequence) -> None:
        """Keep a finished frame: the next one. Raises `OSError`; a job that is not there keeps nothing."""
        if (folder := self._folder_of(number)) is None:
            return
        pieces = _packed(b"", [memoryview(part).cast("B") for part in parts])
        _write_file(folder / str(index), pieces, durable=False)
        size, checksum = sum(map(len, pieces)), 0
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?)", (number, index, size, checksum)
            )
        self.bytes += size

    def frame(self, number: int, index: int) -> list[bytes]:
        """The parts of a kept frame. Raises `ValueError` where it is damaged or missing: it and those after
        it are then forgotten; and `OSError` where it can't be read for now."""
        folder = self._folder_of(number)
        row = self._database.execute(
            'SELECT size, checksum FROM frames WHERE job = ? AND "index" = ?', (number, index)
        ).fetchone()
        try:
            data = (folder / str(index)).read_bytes() if folder else b""
        except FileNotFoundError:
            data = b""
        if row != (len(data), zlib.crc32(data)) or not data:
            with self._transaction():
                self._database.execute('DELETE FROM frames WHERE job = ? AND "index" >= ?', (number, index))
            self.bytes = self._count_bytes()
            raise ValueError(f"frame {index} is damaged")
        return _unpacked(data)[1]

    def read_frames(self, number: int, begin: int, count: int) -> list[list[bytes]]:
        """At most `count` frames from one on. Raises as `frame` does where that one can't be read."""
        frames = [self.frame(number, begin)]
        try:
            while len(frames) < count and sum(len(part) for frame in frames for part in frame) < ENOUGH:
                frames.append(self.frame(number, begin + len(frames)))
        except (OSError, ValueError):
            pass  # it is told when it is the first that is wanted
        return frames

    def close(self) -> None:
        self._database.close()
        self._lock.release()

    # The database

    def _open(self) -> sqlite3.Connection:
        path = self.folder / "jobs.sqlite"
        fresh = not path.exists() or not path.stat().st_size
        try:
            database = self._connect(path)
            if fresh:  # the first time, or somebody has deleted it
                self._rebuild(database)
            return database
        except sqlite3.OperationalError:
            raise  # locked, full or not allowed: nothing is wrong with what is in it
        except sqlite3.DatabaseError as error:
            log.error("The list of jobs is damaged (%s); it is made anew from the requests", error)
            for suffix in ("", "-wal", "-shm"):
                damaged = path.with_name(path.name + suffix)
                if damaged.exists():
                    damaged.replace(path.with_name(f"damaged-{time.time():.0f}{suffix}.sqlite"))
            database = self._connect(path)
            self._rebuild(database)
            return database

    def _connect(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA foreign_keys = ON")
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version == 1:
                database.executescript(f"BEGIN; {SINCE_1} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            elif version != SCHEMA_VERSION:
                raise ServerError(
                    "The jobs in {folder} are of another release of the server; name another folder with "
                    "--jobs, or delete it.",
                    folder=self.folder,
                )
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if not tables >= {"jobs", "frames"}:
                raise sqlite3.DatabaseError("a table is missing")
        except BaseException:
            database.close()
            raise
        return database

    def _rebuild(self, database: sqlite3.Connection) -> None:
        found = []
        for folder in self.folder.iterdir():
            for name, state in ((ENDING, "ended"), (REQUEST, "waiting")):
                try:
                    head, parts = _unpacked((folder / name).read_bytes())
                    found.append(((folder / name).stat().st_mtime, state, msgpack.unpackb(head), parts))
                    break
                except (OSError, ValueError, KeyError):
                    continue
        for changed, state, head, parts in sorted(found, key=_submitted):
            row = (head["client"], head["id"], head["engine"], content_digest(parts), sum(map(len, parts)))
            number = database.execute(
                "INSERT OR IGNORE INTO jobs (client, id, engine, digest, size, state, changed, about)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, state, changed, msgpack.packb(head.get("about", {}))),
            ).lastrowid
            folder, index = self._folder(head["client"], head["id"]), 0
            while (file := folder / str(index)).exists():
                data = file.read_bytes()
                database.execute(
                    "INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?)",
                    (number, index, len(data), zlib.crc32(data)),
                )
                index += 1

    @contextmanager
    def _transaction(self, durable: bool = False) -> Iterator[None]:
        """With `durable`, what is committed is on the disk, and all that was before it. Raises `OSError`
        where the disk takes no more."""
        try:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC, str(error)) from error

    def _select(self, where: str, *values: object) -> list[StoredJob]:
        rows = self._database.execute(
            "SELECT number, client, id, engine, digest, size, state, deaths,"
            " (SELECT COUNT(*) FROM frames WHERE frames.job = jobs.number), changed,"
            " about"
            f" FROM jobs {where} ORDER BY number",
            values,
        )
        return [StoredJob(*(*row[:-1], msgpack.unpackb(row[-1]))) for row in rows]

    def _frame_bytes(self, number: int) -> int:
        (size,) = self._database.execute(
            "SELECT COALESCE(SUM(size), 0) FROM frames WHERE job = ?", (number,)
        ).fetchone()
        return size

    def _count_bytes(self) -> int:
        (requests,) = self._database.execute(
            "SELECT COALESCE(SUM(size), 0) FROM jobs WHERE state != 'ended'"
        ).fetchone()
        (frames,) = self._database.execute("SELECT COALESCE(SUM(size), 0) FROM frames").fetchone()
        return requests + frames

    # The files

    def _folder(self, client: bytes, id: str) -> Path:
        return self.folder / hashlib.sha256(client + b"\0" + id.encode()).hexdigest()[:32]

    def _folder_of(self, number: int) -> Path | None:
        """Where the files of a job are; None where there is no such job."""
        if number not in self._folders:
            row = self._database.execute("SELECT client, id FROM jobs WHERE number = ?", (number,)).fetchone()
            if row is None:
                return None
            self._folders[number] = self._folder(*row)
        return self._folders[number]

    def _remove_leavings(self) -> None:
        """What a kill has left between a file and its row, or a row and its files."""
        known = {self._folder(job.client, job.id).name for job in self.jobs()}
        for folder in self.folder.iterdir():
            if folder.is_dir() and len(folder.name) == 32 and folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)


def _submitted(found: tuple) -> float:
    changed, _, head, _ = found
    return head.get("about", {}).get("submitted", changed)


def is_scarcity(error: OSError) -> bool:
    """Whether there are too many open files for now, which passes."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def content_digest(parts: Sequence) -> bytes:
    """What tells two requests apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.digest()


def _packed(head: bytes, views: Sequence[memoryview]) -> list:
    sizes = [len(head), *map(len, views)]
    return [struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes), head, *views]


def _unpacked(data: bytes) -> tuple[bytes, list[bytes]]:
    """Raises `ValueError`."""
    try:
        (count,) = struct.unpack_from("<I", data)
        sizes = struct.unpack_from(f"<{count}Q", data, 4)
    except struct.error as error:
        raise ValueError("the file was cut off") from error
    begin, parts = 4 + 8 * count, []
    for size in sizes:
        parts.append(data[begin : begin + size])
        begin += size
    if not parts or begin != len(data):
        raise ValueError("the file was cut off")
    return parts[0], parts[1:]


def _write_file(path: Path, pieces: Sequence, durable: bool) -> None:
    with open(path, "wb", buffering=0) as file:
        for piece in pieces:
            view = memoryview(piece)
            while view.nbytes:
                view = view[file.write(view) :]
        if durable:
            os.fsync(file.fileno())
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
