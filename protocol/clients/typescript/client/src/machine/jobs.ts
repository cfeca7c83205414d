/** Requests that are repeated until they succeed or are refused, across any number of connections. */

import { RetryTimer } from "../policy/backoff.ts";
import { retryability } from "../policy/errors.ts";
import type { ErrorBody } from "../protocol/generated.ts";
import type { Call, Context, Outcome } from "./io.ts";

/** Maximum number of attempts while the server answers `internal`. */
const MAX_DEFECTS = 5;

/** Maximum number of jobs with a request in flight. */
const MAX_IN_FLIGHT = 32;

/** What to do after a reply: end the job, request more, or request it later. */
export type JobProgress = "done" | "more" | "later";

export interface Job {
  /** Jobs of the same lane run one at a time, oldest first. */
  lane?: string;
  /** Whether the job is not repeated after an error or the end of the connection. */
  isOnce?: boolean;
  /** The time at which a job without a request in flight fails with `unavailable`. */
  deadline?: number;
  /** Whether it can be worked on now. Default true. */
  isReady?(): boolean;
  request(): Call;
  done(result: never): JobProgress;
  /** It ends without success. `wasSent`: it may have been carried out. */
  failed(error: ErrorBody, wasSent: boolean): void;
  /** The connection ended. */
  restart?(): void;
}

interface JobState {
  isInFlight: boolean;
  wasSent: boolean;
  retry: RetryTimer;
  defects: number;
}

export class Jobs {
  #jobs = new Map<Job, JobState>();

  add(job: Job): void {
    this.#jobs.set(job, { isInFlight: false, wasSent: false, retry: new RetryTimer(), defects: 0 });
  }

  /** Removes a job. The reply to its request is ignored. */
  remove(job: Job | undefined): void {
    if (job) this.#jobs.delete(job);
  }

  /** Number of jobs whose lanes begin like this. */
  count(lanes: string): number {
    let count = 0;
    for (const job of this.#jobs.keys()) count += job.lane?.startsWith(lanes) ? 1 : 0;
    return count;
  }

  /** Sends the requests that may be sent now. */
  advance(context: Context): void {
    const lanes = new Set<string>();
    let room = MAX_IN_FLIGHT;
    for (const state of this.#jobs.values()) room -= state.isInFlight ? 1 : 0;
    for (const [job, state] of this.#jobs) {
      if (job.lane && lanes.has(job.lane)) continue;
      if (job.isReady?.() === false) continue;
      if (job.lane) lanes.add(job.lane);
      if (!state.isInFlight && state.retry.due <= context.now && room > 0) {
        room -= 1;
        this.#send(context, job, state);
      }
    }
  }

  #send(context: Context, job: Job, state: JobState): void {
    state.isInFlight = state.wasSent = true;
    const { method, params } = job.request();
    context.request(method, params, ({ result, error }: Outcome<unknown>) => {
      if (this.#jobs.get(job) !== state) return;
      state.isInFlight = false;
      let next: JobProgress;
      if (error) {
        const kind = retryability(error);
        state.defects += kind === "defect" ? 1 : 0;
        if (job.isOnce || kind === "permanent" || state.defects >= MAX_DEFECTS) {
          return this.#fail(job, state, error);
        }
        job.restart?.();
        next = "later";
      } else {
        next = job.done(result as never);
      }
      if (next === "later") {
        state.retry.schedule(context.now, context.random(), error?.retry_after_ms);
      } else if (next === "more") {
        state.retry = new RetryTimer();
      } else {
        this.#jobs.delete(job);
      }
    });
  }

  #fail(job: Job, state: JobState, error: ErrorBody): void {
    this.#jobs.delete(job);
    job.failed(error, state.wasSent);
  }

  /** Ends the jobs whose deadline has passed. */
  expire(now: number, error: ErrorBody): void {
    for (const [job, state] of this.#jobs) {
      if (!state.isInFlight && (job.deadline ?? Infinity) <= now) this.#fail(job, state, error);
    }
  }

  *deadlines(): Iterable<number> {
    for (const [job, state] of this.#jobs) {
      if (!state.isInFlight && job.deadline) yield job.deadline;
    }
  }

  /** The time at which waiting jobs may continue. */
  *due(): Iterable<number> {
    for (const state of this.#jobs.values()) yield state.retry.due;
  }

  /** The session ended: requests in flight are sent again. */
  disconnected(error: ErrorBody): void {
    for (const [job, state] of this.#jobs) {
      if (state.isInFlight && job.isOnce) {
        this.#fail(job, state, error);
        continue;
      }
      state.isInFlight = false;
      state.retry = new RetryTimer();
      job.restart?.();
    }
  }

  /** All jobs fail. */
  end(error: ErrorBody): void {
    for (const [job, state] of this.#jobs) this.#fail(job, state, error);
  }
}
