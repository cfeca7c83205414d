/** Observable values. */

/**
 * A value that changes. React takes it with `useSyncExternalStore(value.subscribe, value.getSnapshot)`,
 * Svelte as a store, Solid with `from(value)`, Vue with a `shallowRef` that a listener sets.
 */
export interface Observable<T> {
  /** Calls `listener` with the value now and after each change. Returns a function that ends it. */
  subscribe(listener: (value: T) => void): () => void;
  /** Returns the value, the same object until it changes. */
  getSnapshot(): T;
}

/** A value that is computed when it is read after a change. */
export class Cell<T> implements Observable<T> {
  readonly #compute: () => T;
  #listeners = new Set<(value: T) => void>();
  #value: T | undefined;
  #isStale = true;

  constructor(compute: () => T) {
    this.#compute = compute;
  }

  readonly subscribe = (listener: (value: T) => void): (() => void) => {
    // The same function may subscribe twice.
    const own = (value: T) => listener(value);
    this.#listeners.add(own);
    own(this.getSnapshot());
    return () => void this.#listeners.delete(own);
  };

  readonly getSnapshot = (): T => {
    if (this.#isStale) {
      this.#isStale = false;
      this.#value = this.#compute();
    }
    return this.#value as T;
  };

  /** The value has changed. Listeners are called soon, once for many changes. */
  invalidate(): void {
    this.#isStale = true;
    if (this.#listeners.size === 0) return;
    if (changed.size === 0) queueMicrotask(flush);
    changed.add(this as Cell<unknown>);
  }

  notify(): void {
    for (const listener of this.#listeners) listener(this.getSnapshot());
  }
}

const changed = new Set<Cell<unknown>>();

function flush(): void {
  const cells = [...changed];
  changed.clear();
  for (const cell of cells) cell.notify();
}
