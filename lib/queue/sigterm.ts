const closing = new Set<() => Promise<void>>();

/** Ends by SIGTERM once all is closed, unless the program listens to it and ends by itself. A second SIGTERM ends at once. */
function onSignal(): void {
  void Promise.allSettled([...closing].map((close) => close())).then(() => {
    if (process.listenerCount('SIGTERM') === 0) process.kill(process.pid, 'SIGTERM');
  });
}

/** Calls `close` at SIGTERM, before the process ends by it, until what this gives is called. */
export function onSigterm(close: () => Promise<void>): () => void {
  if (closing.size === 0) process.once('SIGTERM', onSignal);
  closing.add(close);
  return () => {
    closing.delete(close);
    if (closing.size === 0) process.removeListener('SIGTERM', onSignal);
  };
}
