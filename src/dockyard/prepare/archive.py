"""Unpacking an upload: its chunks are read as the archive that they are, and only the model's files leave it."""

import hashlib
from pathlib import Path
from tarfile import BLOCKSIZE, HeaderError

from dockyard.domain.job import Phase
from dockyard.domain.upload import FileExtension
from dockyard.errors import Failed, Reason
from dockyard.prepare.archive_rules import Chosen, choose, damaged, quoted
from dockyard.prepare.artifacts import check_room
from dockyard.prepare.chunked_file import ChunkedFile
from dockyard.prepare.reporting import ByteProgress, Reporter
from dockyard.prepare.tar_archive import TarArchive, read_header
from dockyard.prepare.zip_archive import MAGIC, ZipArchive
from dockyard.protocols.preparation import UploadSource

_LARGEST_READ = 4 << 20  # bytes: the directory of a zip with 10,000 entries has 1 to 2 MB
_READ_BYTES = 1 << 20
_DIGESTED = 0.2  # the share of the bar that comparing the digest takes
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"GGUF": "a GGUF file",
    b"PK\x05\x06": "a zip without files",
}


def unpack_upload(source: UploadSource, scratch: Path, reporter: Reporter, end: float) -> Path:
    """The folder, or the GGUF file, that was in the archive; below `scratch`. `end`: the share of the bar when done.

    Raises `Failed` before anything is written, but for damage that only shows in the content.
    """
    paths = [Path(source.folder) / str(number) for number in range(source.chunks)]
    with ChunkedFile(paths, _LARGEST_READ) as file:
        start = 0.0
        if source.sha256 is not None:
            start = _DIGESTED
            _check_digest(file, source.sha256, ByteProgress(reporter, Phase.COPYING, "checking", file.size, end=start))
        reporter.progress(Phase.COPYING, start, "looking into the archive")
        _check_kind(file, source.extension)
        archive = TarArchive(file) if source.extension == FileExtension.TAR else ZipArchive(file)
        chosen = choose(archive.members(), file.size)
        total = sum(one.member.size for one in chosen if one.member)
        check_room(scratch, total)
        folder = scratch / "unpacked"
        folder.mkdir()
        progress = ByteProgress(reporter, Phase.COPYING, "unpacking", total, start=start, end=end)
        for one in chosen:
            _unpack(archive, one, folder, progress)
    return _model_in(folder, chosen)


def _check_digest(file: ChunkedFile, sha256: str, progress: ByteProgress) -> None:
    checksum = hashlib.sha256()
    file.seek(0)
    while piece := file.read(min(_READ_BYTES, file.size - file.tell())):
        checksum.update(piece)
        progress.add(len(piece))
    if checksum.hexdigest() != sha256.lower():
        raise Failed(
            f"the SHA-256 of what arrived is {checksum.hexdigest()}, and the client named {sha256}; "
            "send the archive again",
            reason=Reason.DIGEST_MISMATCH,
        )


def _check_kind(file: ChunkedFile, extension: str) -> None:
    """Raise `Failed` unless the file is of the kind that the client named, and of no other."""
    file.seek(0)
    head = file.read(BLOCKSIZE)
    is_zip, is_tar = head.startswith(MAGIC), _is_tar(head)
    if is_zip and is_tar:
        told = "the archive is a tar and a zip at once; pack the model's folder anew"
    elif is_zip and extension != FileExtension.ZIP:
        told = "fileExtension is tar and the file is a zip; start the upload with fileExtension zip"
    elif is_tar and extension != FileExtension.TAR:
        told = "fileExtension is zip and the file is a tar; start the upload with fileExtension tar"
    elif is_zip or is_tar:
        return
    else:
        kind = next((kind for magic, kind in _OTHER_KINDS.items() if head.startswith(magic)), None)
        told = (
            f"the file is {kind or 'neither a tar nor a zip'} and fileExtension is {extension}; send a plain tar or zip"
        )
    raise Failed(told, reason=Reason.ARCHIVE_KIND_MISMATCH)


def _is_tar(head: bytes) -> bool:
    try:
        read_header(head)
    except HeaderError:
        return False
    return True


def _unpack(archive: TarArchive | ZipArchive, one: Chosen, folder: Path, progress: ByteProgress) -> None:
    with (folder / one.name).open("xb") as out:
        if one.member is None:
            return
        left = one.member.size
        for piece in archive.read(one.member):
            left -= len(piece)
            if left < 0:
                raise damaged(f"{quoted(one.name)} is larger than it claims")
            out.write(piece)
            progress.add(len(piece))
        if left:
            raise damaged(f"{quoted(one.name)} is {left} bytes shorter than it claims")


def _model_in(folder: Path, chosen: list[Chosen]) -> Path:
    """The only GGUF file in a folder that is no model otherwise, else the folder."""
    names = {one.name for one in chosen}
    gguf = [name for name in names if name.endswith(".gguf")]
    return folder / gguf[0] if len(gguf) == 1 and "config.json" not in names else folder
