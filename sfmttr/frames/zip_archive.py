"""Zip files of images from untrusted sources. Members are read into memory one at a time, never extracted to disk."""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from sfmttr.config import VideoConfig
from sfmttr.errors import ClipError

CHUNK = 1 << 20
MAX_MEMBER_BYTES = 512 << 20
"""Maximum size of one image, which bounds memory."""
RATIO_CHECKED_FROM = 16 << 20
# Photographs hardly compress, so a large member with a high ratio is a zip bomb.
MAX_RATIO = 200
"""Maximum compression ratio of members larger than `RATIO_CHECKED_FROM`. Photographs hardly compress, so a member
above it is a zip bomb."""
ENTRY_BYTES = 512
"""Upper bound on the size of one entry of the central directory, with a long name."""


class UnreadableMemberError(ValueError):
    """Error of one damaged member; the others may be readable."""


class Archive:
    """Validated zip file. Raises `ClipError` on opening when it is damaged, too large or unsafe."""

    def __init__(self, path: Path, config: VideoConfig) -> None:
        self._name = path.name
        self._left = self._limit = config.max_archive_bytes
        _check_directory_size(path, config.max_archive_files)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
            raise ClipError(f"{path.name} is not a zip file, or it is damaged; pack the images again") from error
        try:
            self.names = self._checked_names()
        except ClipError:
            self._zip.close()
            raise

    def close(self) -> None:
        self._zip.close()

    def read(self, name: str) -> io.BytesIO:
        """Return the bytes of a member. Limits apply to the bytes read, because headers may be wrong.

        Raises `UnreadableMemberError` for a damaged member, `ClipError` when it is too large.
        """
        info = self._zip.getinfo(name)
        data = io.BytesIO()
        try:
            with self._zip.open(info) as stream:
                while chunk := stream.read(CHUNK):
                    data.write(chunk)
                    self._count_bytes(len(chunk), data.tell(), info)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError) as error:
            raise UnreadableMemberError("damaged in the zip file") from error
        data.seek(0)
        return data

    def _count_bytes(self, count: int, total: int, info: zipfile.ZipInfo) -> None:
        self._left -= count
        if self._left < 0:
            raise ClipError(f"{self._name} unpacks to more than {self._limit:,} bytes; put fewer or smaller images in")
        bomb = total > RATIO_CHECKED_FROM and total > MAX_RATIO * max(1, info.compress_size)
        if bomb or total > MAX_MEMBER_BYTES:
            raise ClipError(f"{info.filename} in {self._name} unpacks to far more than an image needs; take it out")

    def _checked_names(self) -> list[str]:
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        for info in infos:
            self._check(info)
        names = [info.filename for info in infos if not _is_hidden(info.filename)]
        if len(set(names)) != len(names):
            raise ClipError(f"{self._name} holds two files of one name; pack the images again")
        return names

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.orig_filename
        rooted = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name)
        if rooted or ".." in re.split(r"[/\\]", name) or "\0" in name:
            raise ClipError(f"{self._name} holds a file name that leaves its folder ({name!r}); pack the images again")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ClipError(f"{self._name} holds a link ({name}); pack the images themselves")
        if info.flag_bits & 0x1:
            raise ClipError(f"{self._name} is encrypted; pack the images without a password")
        # With other methods (LZMA above all), a few bytes can request gigabytes of working memory.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ClipError(f"{self._name} is packed in an unusual way; pack the images as an ordinary zip file")


def _is_hidden(name: str) -> bool:
    return any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(name).parts)


def _check_directory_size(path: Path, max_files: int) -> None:
    """Refuse too many entries before `zipfile` allocates an object for each.

    Zip64 archives are refused: the format is only needed beyond these limits, and without it one record gives the
    number of entries.
    """
    too_many = ClipError(f"{path.name} holds more than {max_files} files; put fewer images in")
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - (1 << 16) - 64))
            tail = file.read()
    except OSError as error:
        raise ClipError(f"{path.name} cannot be read ({error.strerror or error})") from error
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        return  # no central directory: `zipfile` reports it
    entries = int.from_bytes(tail[at + 10 : at + 12], "little")
    directory_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
    if entries > max_files or directory_bytes > max_files * ENTRY_BYTES or tail[max(0, at - 20) : at][:4] == b"PK\6\7":
        raise too_many
