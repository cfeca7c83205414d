/** The profiles of users. */

import type { User } from "../protocol/generated.ts";
import { Cell, type Observable } from "./cell.ts";
import type { Host } from "./host.ts";

/** Number of users in one request. */
const USERS_PER_REQUEST = 100;

export class Users {
  readonly #host: Host;
  #users = new Map<string, User>();
  #cells = new Map<string, Cell<User | undefined>>();
  #wanted = new Set<string>();

  constructor(host: Host) {
    this.#host = host;
  }

  /** The profile of a user, which is read when it is first asked for. */
  get(id: string): Observable<User | undefined> {
    let cell = this.#cells.get(id);
    if (!cell) {
      cell = new Cell(() => this.#users.get(id));
      this.#cells.set(id, cell);
      if (!this.#users.has(id)) this.#want([id]);
    }
    return cell;
  }

  set(user: User): void {
    this.#users.set(user.id, user);
    this.#cells.get(user.id)?.invalidate();
  }

  #want(ids: string[]): void {
    if (this.#wanted.size === 0) queueMicrotask(() => void this.#read());
    for (const id of ids) this.#wanted.add(id);
  }

  async #read(): Promise<void> {
    const all = [...this.#wanted];
    this.#wanted.clear();
    for (let first = 0; first < all.length; first += USERS_PER_REQUEST) {
      const ids = all.slice(first, first + USERS_PER_REQUEST);
      try {
        const { items, more } = await this.#host.call("user.get", { user_ids: ids }, "retry");
        items.forEach((user) => this.set(user));
        // The reply had no room for all of them.
        if (more && items.length > 0) this.#want(ids.filter((id) => !this.#users.has(id)));
      } catch {
        // They are asked for again when they are next wanted.
        for (const id of ids) if (!this.#users.has(id)) this.#cells.delete(id);
      }
    }
  }
}
