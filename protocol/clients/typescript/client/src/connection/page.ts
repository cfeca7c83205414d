/** When the network or the page is back. */

interface Target {
  addEventListener?(type: string, listener: () => void): void;
  removeEventListener?(type: string, listener: () => void): void;
}

/** Calls `back` when the network is back, and when the page is visible or not frozen any more. */
export function onPageBack(back: () => void): () => void {
  const scope = globalThis as Target & { document?: Target & { visibilityState: string } };
  const page = scope.document;
  const visible = () => {
    if (page?.visibilityState === "visible") back();
  };
  const listeners: Array<[Target | undefined, string, () => void]> = [
    [scope, "online", back],
    [scope, "pageshow", back],
    [page, "resume", back],
    [page, "visibilitychange", visible],
  ];
  for (const [target, type, listener] of listeners) target?.addEventListener?.(type, listener);
  return () => {
    for (const [target, type, listener] of listeners) target?.removeEventListener?.(type, listener);
  };
}
