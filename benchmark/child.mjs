// One measured run of one JavaScript contender, in a process of its own: `node child.mjs JOB.json`.
// Results go to files, since contenders may print what they like.

import { readFileSync, writeFileSync } from 'node:fs';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { open } = await import(`./contenders/${job.contender}`);

const begun = performance.now();
const contender = await open(job);
await contender.embed(job.warmUp.slice(0, 1));
const firstSeconds = (performance.now() - begun) / 1000;
await contender.embed(job.warmUp.slice(1));

const cpuBefore = process.cpuUsage();
const started = performance.now();
const batches = await contender.embed(job.texts);
const seconds = (performance.now() - started) / 1000;
const cpu = process.cpuUsage(cpuBefore);
const peakRssMB = readPeakRssMB();

await contender.close?.();
writeFileSync(job.vectorsFile, Buffer.concat(batches.map((batch) => Buffer.from(Float32Array.from(batch).buffer))));
writeFileSync(job.resultFile, JSON.stringify({ seconds, firstSeconds, cpuSeconds: (cpu.user + cpu.system) / 1e6, peakRssMB }));

/** `maxRSS` on Linux also remembers the process that started this one, so /proc is asked first. */
function readPeakRssMB() {
  try {
    return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
  } catch {
    return process.resourceUsage().maxRSS / 1024;
  }
}
