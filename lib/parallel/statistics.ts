/** Of the values of one score. Percentiles are within 1 % of the value, the others as exact as doubles are. */
export interface ScoreStats {
  count: number;
  mean: number;
  /** Of these values, with the divisor n; 0 for one value. */
  std: number;
  min: number;
  max: number;
  p50: number;
  p95: number;
}

/** Ratio of the bounds of a bucket: its middle is within 1 % of all values in it. */
const GAMMA = 1.02;
const LOG_GAMMA = Math.log(GAMMA);
/** Smaller values are counted as 0. There are at most some ten thousand buckets from here to the largest number. */
const SMALLEST = 1e-12;
/** Numbers beyond this are summed up in a smaller unit, so that their squares stay numbers. A power of two changes no digit. */
const LARGE = 1e140;
const UNIT = 2 ** 600;

/**
 * Statistics of numbers that come one by one, in constant memory. Mean and variance after Welford (1962); percentiles from
 * counts in buckets that grow by a constant factor, after DDSketch (Masson, Rim, Lee 2019).
 */
export class RunningStats {
  #count = 0;
  #mean = 0;
  #squares = 0;
  /** What mean and squares are counted in. */
  #unit = 1;
  #min = Infinity;
  #max = -Infinity;
  #zeros = 0;
  readonly #positive = new Map<number, number>();
  readonly #negative = new Map<number, number>();

  add(value: number): void {
    this.#count++;
    if (this.#unit === 1 && Math.abs(value) > LARGE) {
      this.#unit = UNIT;
      this.#mean /= UNIT;
      this.#squares = this.#squares / UNIT / UNIT;
    }
    const measured = value / this.#unit;
    const delta = measured - this.#mean;
    this.#mean += delta / this.#count;
    this.#squares += delta * (measured - this.#mean);
    if (value < this.#min) this.#min = value;
    if (value > this.#max) this.#max = value;
    const size = Math.abs(value);
    if (size < SMALLEST) {
      this.#zeros++;
      return;
    }
    const bucket = Math.ceil(Math.log(size) / LOG_GAMMA);
    const side = value > 0 ? this.#positive : this.#negative;
    side.set(bucket, (side.get(bucket) ?? 0) + 1);
  }

  get(): ScoreStats {
    const [p50, p95] = this.#percentiles([0.5, 0.95]) as [number, number];
    const std = Math.sqrt(this.#squares / this.#count) * this.#unit;
    return { count: this.#count, mean: this.#mean * this.#unit, std, min: this.#min, max: this.#max, p50, p95 };
  }

  /** The values at these shares of the ordered ones, by nearest rank. */
  #percentiles(shares: number[]): number[] {
    const middle = (bucket: number) => (2 * GAMMA ** bucket) / (GAMMA + 1);
    const buckets: [value: number, count: number][] = [
      ...[...this.#negative].sort(([a], [b]) => b - a).map(([bucket, count]): [number, number] => [-middle(bucket), count]),
      [0, this.#zeros],
      ...[...this.#positive].sort(([a], [b]) => a - b).map(([bucket, count]): [number, number] => [middle(bucket), count]),
    ];
    return shares.map((share) => {
      let left = Math.max(1, Math.ceil(share * this.#count));
      const found = buckets.find(([, count]) => (left -= count) <= 0);
      return Math.min(this.#max, Math.max(this.#min, found?.[0] ?? 0));
    });
  }
}
