/** Does what the first argument of the program says. */
export function work(embedcore: object, way?: string): Promise<void>;
export function check(embedcore: object): Promise<void>;
export function leaveWork(embedcore: object): Promise<{ cleanup(): Promise<void> }>;
