/** The presence of the users that the application watches. */

import type { Presence } from "../protocol/generated.ts";
import { Cell, type Observable } from "./cell.ts";
import type { Host } from "./host.ts";

/** Number of users that a session may watch. */
const MAX_WATCHED = 100;

export class PresenceWatch {
  readonly #host: Host;
  #known = new Map<string, Presence>();
  #cells = new Map<string, Cell<Presence | undefined>>();
  /** Number of watchers of each user. */
  #watched = new Map<string, number>();
  #isPlanned = false;

  constructor(host: Host) {
    this.#host = host;
  }

  /** The presence of a user: undefined until it is known. It is kept up to date while watched. */
  get(id: string): Observable<Presence | undefined> {
    let cell = this.#cells.get(id);
    if (!cell) this.#cells.set(id, (cell = new Cell(() => this.#known.get(id))));
    return cell;
  }

  /** Watches users, of more than 100 the last 100. Returns a function that ends it. */
  watch(ids: string[]): () => void {
    this.#count(ids, 1);
    let ended = () => this.#count(ids, -1);
    return () => {
      ended();
      ended = () => {};
    };
  }

  #count(ids: string[], change: number): void {
    for (const id of ids) {
      const count = (this.#watched.get(id) ?? 0) + change;
      this.#watched.delete(id);
      if (count > 0) this.#watched.set(id, count);
    }
    this.#plan();
  }

  /** A session watches nobody at first. */
  connected(): void {
    if (this.#watched.size > 0) this.#plan();
  }

  set(id: string, presence: Presence): void {
    if (presence.at < (this.#known.get(id)?.at ?? 0)) return;
    this.#known.set(id, presence);
    this.#cells.get(id)?.invalidate();
  }

  /** Asks once for many changes. */
  #plan(): void {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    queueMicrotask(async () => {
      this.#isPlanned = false;
      const user_ids = [...this.#watched.keys()].slice(-MAX_WATCHED);
      try {
        const { presence } = await this.#host.call("presence.watch", { user_ids }, "now");
        for (const [id, state] of Object.entries(presence)) this.set(id, state);
      } catch {
        // Without a session: the next one watches them.
      }
    });
  }
}
