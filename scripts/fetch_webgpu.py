#!/usr/bin/env python3
"""Puts the pinned plugin of ONNX Runtime for WebGPU into its package: npm/webgpu-<platform>/<libraries>.

pip fetches the official wheel and checks its SHA-256; its libraries are taken as they are, and each is checked against the
SHA-256 that the addon is compiled with. Does nothing when the right files are there.

    python3 scripts/fetch_webgpu.py [--target x86_64-unknown-linux-gnu]
    python3 scripts/fetch_webgpu.py --all --pin     # after a change of version: write the new SHA-256s
"""

from wheels import ROOT, Package, command

PINS = ROOT / "webgpu.json"

if __name__ == "__main__":
    package = Package(PINS, "onnxruntime-ep-webgpu", "WebGPU")
    command(__doc__, PINS, package.fetch, "No plugin for WebGPU is pinned for {target}.")
