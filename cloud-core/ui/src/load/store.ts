// A value that components can watch. The page's few pieces of shared state are each one of these.
import { useEffect, useState } from "preact/hooks";

export class Store<T> {
  private readonly watchers = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const watcher of [...this.watchers]) watcher();
  }

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }
}

export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useState(0);
  useEffect(() => {
    const stop = store.watch(() => redraw((n) => n + 1));
    // It may have changed between the first drawing and this effect.
    redraw((n) => n + 1);
    return stop;
  }, [store]);
  return store.get();
}
