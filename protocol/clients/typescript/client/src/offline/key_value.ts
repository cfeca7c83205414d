/** Where an offline store keeps its data. */

export interface KeyValueStore {
  entries(): Promise<Array<[key: string, value: unknown]>>;
  /** Writes all of these changes or none. Undefined removes. */
  write(changes: Array<[key: string, value: unknown]>): Promise<void>;
  /** Removes everything. */
  erase(): Promise<void>;
}

const STORE = "chaos";

/**
 * A store in IndexedDB. Each user of a device needs a `name` of its own, such as the user's id: it is
 * the name of the database, after `chaos-`.
 */
export function indexedDb(name: string): KeyValueStore {
  const database = `chaos-${name}`;
  let open: Promise<IDBDatabase> | undefined;
  const connect = () => {
    open ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(database, 1);
      request.onupgradeneeded = () => void request.result.createObjectStore(STORE);
      request.onsuccess = () => {
        // Another tab erases it.
        request.result.onversionchange = () => {
          request.result.close();
          open = undefined;
        };
        resolve(request.result);
      };
      request.onerror = () => {
        open = undefined;
        reject(request.error);
      };
    });
    return open;
  };
  return {
    async entries() {
      const store = (await connect()).transaction(STORE).objectStore(STORE);
      const [keys, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
      return keys.map((key, index) => [String(key), values[index] as unknown]);
    },
    async write(changes) {
      const transaction = (await connect()).transaction(STORE, "readwrite");
      const store = transaction.objectStore(STORE);
      for (const [key, value] of changes) {
        if (value === undefined) store.delete(key);
        else store.put(value, key);
      }
      await new Promise<void>((resolve, reject) => {
        transaction.oncomplete = () => resolve();
        transaction.onabort = transaction.onerror = () => reject(transaction.error);
      });
    },
    async erase() {
      (await open)?.close();
      open = undefined;
      await done(indexedDB.deleteDatabase(database));
    },
  };
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
