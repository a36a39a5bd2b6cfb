export interface Block {
  where: string;
  code: string;
  runs: boolean;
}
export const STAND_INS: string;
export function blocks(path: string): Block[];
export function guides(): string[];
export function runnable(code: string): string;
