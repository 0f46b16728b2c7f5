/** One operation as its client saw it: when it was asked for and answered, and what it may do to what the host holds. */
export interface Seen<State> {
  readonly what: string;
  readonly asked: number;
  readonly answered: number;
  /** The states that can follow when the operation happens at this one and is answered as it was; none: it cannot be here. */
  readonly after: (state: State) => readonly State[];
}

/**
 * Looks for an order in which the operations could have happened one after the other, each between its request and its
 * answer, with the answers that they got (linearizability, by the search of Wing and Gong). Returns undefined when there is
 * one; otherwise the longest beginning of one that was found.
 */
export function noOrder<State>(seen: readonly Seen<State>[], initial: State): readonly string[] | undefined {
  const visited = new Set<string>();
  let longest: readonly string[] = [];
  const search = (left: readonly number[], state: State, order: readonly string[]): boolean => {
    if (order.length > longest.length) longest = order;
    if (left.length === 0) return true;
    const key = `${left.join(" ")} ${JSON.stringify(state)}`;
    if (visited.has(key)) return false;
    visited.add(key);
    const firstAnswer = Math.min(...left.map((index) => seen[index]?.answered ?? Infinity));
    for (const index of left) {
      const operation = seen[index];
      if (operation === undefined || operation.asked > firstAnswer) continue;
      const rest = left.filter((other) => other !== index);
      for (const next of operation.after(state))
        if (search(rest, next, [...order, operation.what])) return true;
    }
    return false;
  };
  return search([...seen.keys()], initial, []) ? undefined : longest;
}
