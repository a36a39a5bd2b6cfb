// What paths mean that are given to calls: at home, as URLs, and where there is no working directory.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { CodeIndex, InferenceCache, IntelligentEmbeddingCache, ModelStore, OptimizedEmbeddingGenerator, PerformanceDashboard, PerformanceMonitor } from 'embedcore';
import { expect, onTestFinished, test, vi } from 'vitest';

import { failure } from './support';

test('paths in the home directory and file URLs are what they say, of calls too', async () => {
  const [home, here, before] = [mkdtempSync(join(tmpdir(), 'embedcore-home-')), mkdtempSync(join(tmpdir(), 'embedcore-here-')), process.cwd()];
  vi.stubEnv('HOME', home);
  vi.stubEnv('USERPROFILE', home);
  process.chdir(here);
  onTestFinished(() => {
    process.chdir(before);
    vi.unstubAllEnvs();
    for (const made of [home, here]) rmSync(made, { recursive: true, force: true });
  });
  const monitor = new PerformanceMonitor();
  const dashboard = new PerformanceDashboard({ monitor });
  onTestFinished(() => Promise.all([monitor.close(), dashboard.close()]).then(() => {}));
  await monitor.save('~/cycles.json');
  await dashboard.exportJson(pathToFileURL(join(home, 'snapshot.json')).href);
  await dashboard.exportCsv('~/operations.csv');
  mkdirSync(join(home, 'project'));
  writeFileSync(join(home, 'project', 'a.py'), 'def greet():\n    """Says hello."""\n');
  const index = new CodeIndex('~/project', { path: '~/index.sqlite' });
  expect((await index.update()).files).toBe(1);
  await index.close();
  expect(readdirSync(home).filter((name) => !name.includes('-')).sort()).toEqual(['cycles.json', 'index.sqlite', 'operations.csv', 'project', 'snapshot.json']);
  expect(readdirSync(here)).toEqual([]);
  for (const call of [() => monitor.save('file://elsewhere/x?y'), () => dashboard.exportJson('file:///x#y'), () => new CodeIndex('file://elsewhere/x?y')]) {
    expect(await failure(call)).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('file URL') as string });
  }
});

test.skipIf(process.platform === 'win32')('a working directory that is not there any more is told, wherever a path is relative to it', async () => {
  const [gone, before] = [mkdtempSync(join(tmpdir(), 'embedcore-gone-')), process.cwd()];
  process.chdir(gone);
  onTestFinished(() => process.chdir(before));
  rmSync(gone, { recursive: true });
  for (const call of [
    () => new IntelligentEmbeddingCache({ persistPath: 'cache.db' }), () => new InferenceCache({ persistPath: 'cache.db' }), () => new PerformanceMonitor({ persistPath: 'cycles.json' }),
    () => new CodeIndex('project'), () => new PerformanceMonitor().save('cycles.json'), () => new PerformanceDashboard().exportJson('snapshot.json'),
    () => new OptimizedEmbeddingGenerator({ cacheDir: 'models' }), () => new ModelStore({ cacheDir: 'models' }),
  ]) expect(await failure(call)).toMatchObject({ code: expect.stringMatching(/^INVALID_(CONFIG|ARGUMENT)$/) as string, message: expect.stringContaining('not there any more') as string });
});
