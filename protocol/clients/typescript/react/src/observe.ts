/** Observables as state of a component. */

import type { Observable } from "@chaos/client";
import { useCallback, useRef, useSyncExternalStore } from "react";

/** The value of an observable. `initial` is what the server renders, and the browser at first. */
export function useObservable<T>(value: Observable<T>, initial: T): T {
  return useSyncExternalStore(value.subscribe, value.getSnapshot, () => initial);
}

/** The values of several observables by key, the same object until one changes. */
export function useObservables<T>(
  keys: readonly string[],
  observe: (key: string) => Observable<T>,
): Record<string, T> {
  const key = JSON.stringify(keys);
  const last = useRef<Record<string, T>>({});
  const subscribe = useCallback(
    (changed: () => void) => {
      const ends = (JSON.parse(key) as string[]).map((each) => observe(each).subscribe(changed));
      return () => ends.forEach((end) => end());
    },
    [key, observe],
  );
  const getSnapshot = () => {
    const next = Object.fromEntries(keys.map((each) => [each, observe(each).getSnapshot()]));
    const known = Object.keys(last.current);
    const isSame =
      known.length === keys.length &&
      keys.every((each) => each in last.current && last.current[each] === next[each]);
    if (!isSame) last.current = next;
    return last.current;
  };
  return useSyncExternalStore(subscribe, getSnapshot, getEmpty) as Record<string, T>;
}

const empty = {};
const getEmpty = () => empty;
