"""Raw ONNX Runtime on pre-tokenised input: `python floor.py JOB.json`.

The clock covers nothing but session.run: tokenising, planning and input arrays come before it, pooling after it.
"""

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

try:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer
except ModuleNotFoundError as error:
    sys.exit(f"{error}: pip install -r benchmark/requirements.txt")


def plan(lengths, settings):
    """Row indices of each batch: fixed rows as they come, or sorted under a budget of rows x longest row."""
    if "rows" in settings:
        size = settings["rows"]
        return [range(i, min(i + size, len(lengths))) for i in range(0, len(lengths), size)]
    batches = []
    # Longest first: the first row of a batch is its longest, and two callers finish together on small batches.
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        batch = batches[-1] if batches else None
        if batch and (len(batch) + 1) * lengths[batch[0]] <= settings["budget"]:
            batch.append(row)
        else:
            batches.append([row])
    return batches


def feeds(encodings, input_names):
    longest = max(len(encoding) for encoding in encodings)
    arrays = {name: np.zeros((len(encodings), longest), np.int64) for name in input_names}
    for i, encoding in enumerate(encodings):
        arrays["input_ids"][i, : len(encoding)] = encoding.ids
        arrays["attention_mask"][i, : len(encoding)] = 1
    return arrays


def pool(hidden, mask):
    weights = mask[:, :, None].astype(np.float32)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def peak_rss_mb():
    # ru_maxrss on Linux also remembers the process that started this one.
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # macOS: bytes


def main():
    with open(sys.argv[1]) as file:
        job = json.load(file)
    settings = job["settings"]

    tokenizer = Tokenizer.from_file(f"{job['modelDir']}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(job["maxLength"])

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["sessionThreads"]
    session = onnxruntime.InferenceSession(
        f"{job['modelDir']}/onnx/model.onnx", options, providers=["CPUExecutionProvider"]
    )
    input_names = [node.name for node in session.get_inputs()]

    def prepare(texts):
        encodings = tokenizer.encode_batch(texts)
        batches = plan([len(encoding) for encoding in encodings], settings)
        return batches, [feeds([encodings[row] for row in batch], input_names) for batch in batches]

    # The output is dropped at once: keeping every hidden state would be the harness's memory, not the floor's.
    def run_only(inputs):
        session.run(None, inputs)

    _, warm_up = prepare(job["warmUp"])
    batches, inputs = prepare(job["texts"])
    with ThreadPoolExecutor(settings["callers"]) as callers:
        list(callers.map(run_only, warm_up))
        cpu_before = time.process_time()
        started = time.perf_counter()
        list(callers.map(run_only, inputs))
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - cpu_before
    peak = peak_rss_mb()

    vectors = None
    for batch, arrays in zip(batches, inputs):
        rows = pool(session.run(None, arrays)[0], arrays["attention_mask"])
        if vectors is None:
            vectors = np.empty((len(job["texts"]), rows.shape[1]), np.float32)
        vectors[list(batch)] = rows
    vectors.tofile(job["vectorsFile"])
    with open(job["resultFile"], "w") as file:
        json.dump({"seconds": seconds, "cpuSeconds": cpu_seconds, "peakRssMB": peak}, file)


main()
