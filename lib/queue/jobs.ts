// What is in a job: texts on the way to a worker, and on the way back what became of them. Vectors travel elsewhere.

import { createHash } from 'node:crypto';

import { EmbeddingError, errorOf, type WireError } from '../call/errors';
import { show } from '../call/input';

/** The role of texts, for models that embed the two differently. */
export type InputType = 'document' | 'query';

/** What BullMQ calls our jobs. */
export const JOB = 'embed';

/** Releases that differ in these do not read each other's jobs. */
export const RELEASE: string = (require('../../package.json') as { version: string }).version.split('.').slice(0, 2).join('.');

/** A text, or the strings of an annotation: `nodeId`, `signature`, `summary`, `sourceSnippet`. */
export type Input = string | readonly string[];

/** A chunk of a run. */
export interface JobData {
  release: string;
  inputType: InputType;
  /** The embedding space that is expected; `null`: that of whoever takes the job. */
  fingerprint: string | null;
  /** How often its vectors were not in the shared tier, although a worker had answered: then they are written anew. */
  again: number;
  inputs: readonly Input[];
}

/** The same content is the same job, whoever adds it. */
export function jobId(data: JobData): string {
  return createHash('sha256').update(JSON.stringify(data)).digest('hex');
}

/** The data of a job that somebody has added. @throws `INVALID_ARGUMENT` where it is none of ours. */
export function readJob(data: unknown): JobData {
  const { release, inputType, fingerprint, again, inputs } = (data ?? {}) as Partial<JobData>;
  const wrong = (reason: string) => new EmbeddingError('INVALID_ARGUMENT', `This is no job of embedcore: ${reason}`);
  if (typeof release !== 'string') throw wrong(`it has ${show(release)} as its release`);
  if (release !== RELEASE) throw new EmbeddingError('INVALID_ARGUMENT', `The job was added by embedcore ${release}, this worker is of ${RELEASE}: run both in the same release`, { details: { release } });
  if (inputType !== 'document' && inputType !== 'query') throw wrong(`its inputType is ${show(inputType)}`);
  if (fingerprint !== null && typeof fingerprint !== 'string') throw wrong(`its fingerprint is ${show(fingerprint)}`);
  if (!Number.isSafeInteger(again)) throw wrong(`it was added ${show(again)} times before`);
  const isInput = (input: unknown) => typeof input === 'string' || (Array.isArray(input) && input.length === 4 && input.every((part) => typeof part === 'string'));
  if (!Array.isArray(inputs) || !inputs.every(isInput)) throw wrong('its inputs are neither texts nor annotations');
  return data as JobData;
}

/** The model that a worker has. */
export interface WorkerModel {
  modelId: string;
  fingerprint: string;
  dimensions: number;
  /** Most tokens that it sees of a text; 0 where that is not known. */
  maxLength: number;
}

/** What a worker says of a chunk whose vectors are in the shared tier. */
export interface Answer {
  model: WorkerModel;
  /** Positions of those that it did not have to compute. */
  cached: number[];
  /** How long it took, in milliseconds. */
  ms: number;
}

/** Whether a job's result is a worker's of ours. */
export function isAnswer(value: unknown): value is Answer {
  const { model, cached, ms } = (value ?? {}) as Partial<Answer>;
  const { modelId, fingerprint, dimensions, maxLength } = (model ?? {}) as Partial<WorkerModel>;
  const isModel = [modelId, fingerprint].every((text) => typeof text === 'string') && [dimensions, maxLength].every((count) => Number.isSafeInteger(count));
  return isModel && Array.isArray(cached) && typeof ms === 'number';
}

/** What became of a chunk. */
export interface Outcome {
  /** Absent where nothing could be embedded. */
  answer?: Answer;
  /** By position, those without a vector. */
  errors: ReadonlyMap<number, EmbeddingError>;
}

/** As a failed job has it: the error of the first input, and what else there is to say. */
interface FailedReason extends WireError {
  index: number;
  errors?: [number, WireError][];
  answer?: Answer;
}

/** Texts of errors are cut where a chunk has many long ones, in characters. */
const LONGEST_MESSAGE = 2000;

const toWire = ({ code, message, retryable, details }: EmbeddingError): WireError => ({ code, message: message.slice(0, LONGEST_MESSAGE), retryable, details: plain(details) });

/** Details, if they can be written at all. */
function plain(details: Record<string, unknown>): Record<string, unknown> {
  try {
    return JSON.parse(JSON.stringify(details)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** The reason of a job that fails as a whole. */
export function reasonOf(error: EmbeddingError): string {
  const index = error.details.index;
  return JSON.stringify({ ...toWire(error), index: typeof index === 'number' ? index : 0 } satisfies FailedReason);
}

/** The reason of a job of which some inputs failed, and others were answered. */
export function reasonOfSome(errors: ReadonlyMap<number, EmbeddingError>, answer: Answer): string {
  const [[index, first]] = errors as unknown as [[number, EmbeddingError]];
  const all = [...errors].map(([at, error]): [number, WireError] => [at, toWire(error)]);
  return JSON.stringify({ ...toWire(first), index, errors: all, answer } satisfies FailedReason);
}

/** What became of `count` inputs by the reason that their job failed for. */
export function failedOutcome(reason: string, count: number): Outcome {
  let given: Partial<FailedReason> | undefined;
  try {
    given = JSON.parse(reason) as Partial<FailedReason>;
  } catch {
    // BullMQ's own words: nobody has got as far as to say why.
  }
  if (typeof given?.code === 'string' && given.errors && isAnswer(given.answer)) {
    return { answer: given.answer, errors: new Map(given.errors.map(([at, error]) => [at, errorOf(error)])) };
  }
  const error = typeof given?.code === 'string' ? errorOf(given as WireError) : abandoned(reason);
  return { errors: new Map(Array.from({ length: count }, (_, at) => [at, error])) };
}

function abandoned(reason: string): EmbeddingError {
  const message = `Workers ended again and again while they had this chunk (${reason || 'no reason was given'}): look at their memory and at what they say`;
  return new EmbeddingError('EMBEDDING_GENERATION_FAILED', message, { details: { reason } });
}
