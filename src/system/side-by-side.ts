/**
 * Does `work` with each of the items, at most `atOnce` at a time; whoever is done takes the next. Rejects with the first
 * failure, while the others go on: work that must not fail has a catch of its own.
 */
export async function sideBySide<Item>(
  items: Iterable<Item>,
  atOnce: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const left = items[Symbol.iterator]();
  // One iterator for all, and no `for … of`, which would close it for the others.
  const worker = async (): Promise<void> => {
    for (let next = left.next(); next.done !== true; next = left.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
