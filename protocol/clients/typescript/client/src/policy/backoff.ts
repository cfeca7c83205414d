/** Delays between attempts, each random up to a bound that doubles ("full jitter"). */
export class Backoff {
  #attempts = 0;
  readonly #first: number;
  readonly #max: number;

  /** The bound starts at `first` milliseconds and grows up to `max`. */
  constructor(first: number, max: number) {
    this.#first = first;
    this.#max = max;
  }

  /** Upper bound of the next delay. */
  get bound(): number {
    return Math.min(this.#first * 2 ** Math.min(this.#attempts, 20), this.#max);
  }

  /** Whether no delay was taken since the last reset. */
  get isFresh(): boolean {
    return this.#attempts === 0;
  }

  /** Returns the next delay. `random` is between 0 and 1. */
  wait(random: number): number {
    const wait = this.bound * random;
    this.#attempts += 1;
    return wait;
  }

  /** Starts over, after a success. */
  reset(): void {
    this.#attempts = 0;
  }
}

/** When a failed request may be sent again: at once until something fails. */
export class RetryTimer {
  #backoff = new Backoff(250, 10_000);
  /** The instant of the next attempt, or 0. */
  due = 0;

  /** Schedules the next attempt. The backoff is added to the server's hint, which others got too. */
  schedule(now: number, random: number, hint = 0): void {
    this.due = now + hint + this.#backoff.wait(random);
  }

  isDue(now: number): boolean {
    return this.due <= now;
  }
}
