/** The streams of the channels and of the user: positions, subscriptions, gaps. */

import { retryability } from "../policy/errors.ts";
import type { EventFrame } from "../protocol/codec.ts";
import type {
  Connected,
  Cursor,
  Entry,
  EntryList,
  EntryResult,
  ErrorBody,
  Gap,
  GapData,
  Subscribed,
  Watch,
} from "../protocol/generated.ts";
import { callOf, type Context, type Position, type Resume } from "./io.ts";
import type { Job, Jobs, JobProgress } from "./jobs.ts";
import { ChannelRecovery } from "./recovery.ts";

/** Maximum number of channels in one `connect` or `channel.subscribe`. */
const CHANNELS_PER_REQUEST = 200;

/** Number of recoveries that are worked on at a time. */
const RECOVERY_LANES = 4;

interface Stream {
  /** Undefined: from now on. */
  position: Position | undefined;
  /** Events before the reply to a subscription are ignored: they are replayed after it. */
  state: "unsubscribed" | "joining" | "live";
  recovery: ChannelRecovery | undefined;
  /** The `seq` from which on the channel is up to date. */
  head: number;
}

export class Streams {
  readonly #context: Context;
  readonly #jobs: Jobs;
  readonly #watch: Watch;
  #streams = new Map<string, Stream>();
  #userPosition: Position | undefined;
  #userHead = 0;
  /** Reads the user's channels: all, or until those are known of which there are positions only. */
  #list: { job: Job; unknown: Set<string> | undefined } | undefined;
  /** Channels that the application follows by id. */
  #followed = new Set<string>();
  /** Channels whose messages the application has. */
  #tracked = new Set<string>();
  // Channels that need attention, so that an event does not look at all of them.
  #unsubscribed = new Set<string>();
  #behind = new Set<string>();
  #recovering = new Set<string>();
  #lastLane = 0;
  #subscribing: Job | undefined;

  constructor(context: Context, jobs: Jobs, watch: Watch, resume: Resume) {
    this.#context = context;
    this.#jobs = jobs;
    this.#watch = watch;
    this.#userPosition = resume.userPosition;
    for (const [id, position] of Object.entries(resume.channels ?? {})) {
      this.#insert(id, position, "unsubscribed");
    }
  }

  follow(channelId: string): void {
    this.#followed.add(channelId);
    if (this.#streams.has(channelId)) return;
    this.#insert(channelId, undefined, "unsubscribed");
    this.#subscribe();
  }

  track(channelId: string, isTracked: boolean): void {
    if (isTracked) this.#tracked.add(channelId);
    else this.#tracked.delete(channelId);
  }

  /** Whether events or pages are still to come that were missed. */
  get isBehind(): boolean {
    return (
      this.#unsubscribed.size + this.#behind.size + this.#recovering.size > 0 ||
      this.#subscribing !== undefined ||
      this.#list !== undefined ||
      (this.#userPosition?.[0] ?? 0) < this.#userHead
    );
  }

  /** Returns the positions for `connect`, the latest first, and marks them as joining. */
  resume(): { resume: Record<string, Cursor>; user_position?: Cursor } {
    const at = (id: string) => this.#streams.get(id)?.position?.[1] ?? 0;
    const ids = [...this.#unsubscribed].sort((a, b) => at(b) - at(a));
    const resume = this.#join(ids.slice(0, CHANNELS_PER_REQUEST));
    return this.#userPosition ? { resume, user_position: this.#userPosition } : { resume };
  }

  #join(ids: string[]): Record<string, Cursor> {
    return Object.fromEntries(
      ids.map((id) => {
        this.#setState(id, "joining");
        return [id, this.#streams.get(id)?.position ?? []];
      }),
    );
  }

  connected(connected: Connected): void {
    const { user_position: head, user_gap: gap, channels } = connected;
    this.#userHead = head[0];
    this.#jobs.remove(this.#subscribing);
    this.#subscribing = undefined;
    if (this.#userPosition && gap) {
      this.#userGap(gap, head);
    } else {
      this.#userPosition ??= head;
    }
    this.#entries(channels);
    this.#subscribe();
  }

  disconnected(): void {
    for (const id of this.#streams.keys()) this.#setState(id, "unsubscribed");
    this.#behind.clear();
    // The next session resumes as many as it can.
    this.#jobs.remove(this.#subscribing);
    this.#subscribing = undefined;
  }

  /** Subscribes to the channels that are not. One request at a time. */
  #subscribe(): void {
    if (this.#subscribing || this.#unsubscribed.size === 0) return;
    let ids: string[] = [];
    const job: Job = {
      request: () => {
        ids = [...this.#unsubscribed].slice(0, CHANNELS_PER_REQUEST);
        return callOf("channel.subscribe", { channels: this.#join(ids) });
      },
      done: ({ channels }: Subscribed): JobProgress => {
        for (const entry of channels) {
          if (!("error" in entry)) this.#context.emit({ type: "joined", entry });
        }
        this.#entries(channels);
        if (ids.some((id) => this.#unsubscribed.has(id))) return "later";
        if (this.#unsubscribed.size > 0) return "more";
        this.#subscribing = undefined;
        return "done";
      },
      failed: (error) => {
        this.#subscribing = undefined;
        ids.forEach((id) => this.#lost(id, error));
      },
      restart: () => ids.forEach((id) => this.#setState(id, "unsubscribed")),
    };
    this.#subscribing = job;
    this.#jobs.add(job);
  }

  /** Reads the list of channels: all, or until `unknown` ones are known. */
  #readList(unknown: Set<string> | undefined): void {
    this.#jobs.remove(this.#list?.job);
    let cursor: string | undefined;
    const ended = (error?: ErrorBody) => {
      this.#list = undefined;
      if (!unknown) this.#context.emit({ type: "recovered", error });
    };
    const job: Job = {
      request: () => callOf("channel.list", { cursor, limit: this.#context.page }),
      done: (page: EntryList): JobProgress => {
        cursor = page.cursor;
        page.items.forEach((entry) => unknown?.delete(entry.channel_id));
        this.#context.emit({ type: "channels", entries: page.items });
        if (cursor !== undefined && unknown?.size !== 0) return "more";
        ended();
        return "done";
      },
      failed: ended,
      // A cursor may expire: the list starts over.
      restart: () => (cursor = undefined),
    };
    this.#list = { job, unknown };
    this.#jobs.add(job);
  }

  #userGap(gap: Gap, to: Position): void {
    this.#userPosition = to;
    this.#context.emit({ type: "gap", gap, to });
    this.#readList(undefined);
  }

  /** Handles the entries of a reply to `connect` or `channel.subscribe`. */
  #entries(entries: EntryResult[]): void {
    const unknown = new Set<string>();
    for (const entry of entries) {
      if ("error" in entry) {
        this.#subscribeFailed(entry.channel_id, entry.error);
        continue;
      }
      const stream = this.#streams.get(entry.channel_id);
      const wasResumed = stream?.position && !entry.gap;
      // There was no room for the entry in full, and the application does not know the channel.
      if (!entry.channel && !wasResumed && (this.#watch === "all" || stream)) {
        unknown.add(entry.channel_id);
      }
      this.#entry(entry);
    }
    if (unknown.size > 0 && (!this.#list || this.#list.unknown)) {
      // A list that is being read may have passed them already.
      this.#readList(new Set([...unknown, ...(this.#list?.unknown ?? [])]));
    }
    // Channels that the reply lacks are requested again.
    for (const [id, stream] of this.#streams) {
      if (stream.state === "joining") this.#setState(id, "unsubscribed");
    }
  }

  #entry(entry: Entry): void {
    const { channel_id: id, seq, at, gap } = entry;
    const head: Position = [seq, at];
    const stream = this.#streams.get(id);
    if (!stream) {
      if (this.#watch === "all") this.#insert(id, head, "live");
    } else if (stream.state === "joining" && stream.position && gap) {
      this.#gap(id, stream, gap, head, entry.channel !== undefined);
    } else if (
      stream.state === "joining" ||
      (stream.state === "unsubscribed" && !stream.position)
    ) {
      stream.position ??= head;
      this.#setLive(id, stream, seq);
    }
    // Else the server subscribed to it by its own choice, and it is resumed from its position.
  }

  #setLive(id: string, stream: Stream, head: number): void {
    stream.head = head;
    this.#setState(id, "live");
    if ((stream.position?.[0] ?? 0) < head) this.#behind.add(id);
  }

  #gap(id: string, stream: Stream, gap: Gap, to: Position, isKnown: boolean): void {
    const from = stream.position?.[0] ?? 0;
    this.#context.emit({ type: "gap", channelId: id, gap, to });
    if (gap === "limit_reached") return this.#remove(id);
    stream.position = to;
    this.#setLive(id, stream, to[0]);
    this.#startRecovery(id, stream, gap, from, isKnown);
  }

  /** Reads the missed changes. Of a channel without messages, only its entry. */
  #startRecovery(id: string, stream: Stream, gap: Gap, from: number, isKnown: boolean): void {
    const isTracked = this.#tracked.has(id);
    if (!isTracked && isKnown) return this.#context.emit({ type: "recovered", channelId: id });
    this.#jobs.remove(stream.recovery);
    let changedAfter: number | undefined;
    if (isTracked && gap !== "diverged") {
      changedAfter = stream.recovery ? stream.recovery.earliest(from) : from;
    }
    this.#lastLane = (this.#lastLane + 1) % RECOVERY_LANES;
    const which = {
      lane: `recovery ${this.#lastLane}`,
      changedAfter,
      limit: isTracked ? undefined : 1,
    };
    const recovery = new ChannelRecovery(this.#context, id, which, {
      isReady: () => stream.state === "live",
      tooMuch: () => {
        const to = stream.position ?? [0, 0];
        this.#context.emit({ type: "gap", channelId: id, gap: "diverged", to });
      },
      ended: (error) => {
        stream.recovery = undefined;
        this.#recovering.delete(id);
        this.#context.emit({ type: "recovered", channelId: id, error });
      },
    });
    stream.recovery = recovery;
    this.#recovering.add(id);
    this.#jobs.add(recovery);
  }

  #subscribeFailed(id: string, error: ErrorBody): void {
    if (retryability(error) === "permanent") this.#lost(id, error);
    else this.#setState(id, "unsubscribed");
  }

  #lost(id: string, error: ErrorBody): void {
    if (!this.#streams.has(id)) return;
    this.#remove(id);
    this.#context.emit({ type: "lost", channelId: id, error });
  }

  /** Handles a durable event. */
  event(event: EventFrame, position: Position): void {
    if (event.channel_id === undefined) return this.#userEvent(event, position);
    const id = event.channel_id;
    const stream = this.#streams.get(id);
    if (!stream) return this.#context.emit({ type: "anomaly", event });
    if (stream.state !== "live") return;
    const seq = stream.position?.[0] ?? 0;
    if (position[0] <= seq) return this.#context.emit({ type: "anomaly", event });
    if (position[0] > seq + 1) {
      this.#context.emit({ type: "anomaly", event });
      this.#startRecovery(id, stream, "trimmed", seq, false);
    }
    stream.position = position;
    if (position[0] >= stream.head) this.#behind.delete(id);
    // No event follows.
    if (event.event === "channel.deleted") this.#remove(id);
    this.#context.emit({ type: "event", event });
  }

  #userEvent(event: EventFrame, position: Position): void {
    const seq = this.#userPosition?.[0] ?? 0;
    if (position[0] <= seq) return this.#context.emit({ type: "anomaly", event });
    if (position[0] > seq + 1) {
      this.#context.emit({ type: "anomaly", event });
      this.#userGap("trimmed", position);
    }
    this.#userPosition = position;
    if (event.event === "channel.added") this.#added(event.data.entry as Entry);
    if (event.event === "channel.removed") this.#remove(event.data.channel_id as string);
    this.#context.emit({ type: "event", event });
  }

  /** Follows a channel that the user was added to. If a reply was faster, its position stays. */
  #added({ channel_id: id, seq, at }: Entry): void {
    if (this.#streams.has(id)) return;
    if (this.#watch === "all") this.#insert(id, [seq, at], "live");
    else if (this.#followed.has(id)) this.#insert(id, [seq, at], "unsubscribed");
  }

  /** Handles `channel.gap` of a channel. */
  gapEvent(event: EventFrame): void {
    const { reason, seq, at } = event.data as unknown as GapData;
    const id = event.channel_id ?? "";
    const stream = this.#streams.get(id);
    if (!stream) return this.#context.emit({ type: "anomaly", event });
    // A channel that is not live is subscribed to from its position.
    if (stream.state === "live") this.#gap(id, stream, reason, [seq, at], false);
  }

  #insert(id: string, position: Position | undefined, state: Stream["state"]): void {
    this.#streams.set(id, { position, state, recovery: undefined, head: 0 });
    this.#setState(id, state);
  }

  #setState(id: string, state: Stream["state"]): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    stream.state = state;
    if (state === "unsubscribed") this.#unsubscribed.add(id);
    else this.#unsubscribed.delete(id);
  }

  #remove(id: string): void {
    this.#jobs.remove(this.#streams.get(id)?.recovery);
    this.#streams.delete(id);
    this.#unsubscribed.delete(id);
    this.#behind.delete(id);
    this.#recovering.delete(id);
  }
}
