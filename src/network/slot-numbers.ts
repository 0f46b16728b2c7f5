/** Numbers of slots that nobody has: handed out each to one, those used longest ago last in line to be used again. */
export class SlotNumbers {
  readonly #capacity: number;
  /** Numbers that were taken before their turn came: those in use at the start, and those that were asked for. */
  readonly #takenEarly: Set<number>;
  readonly #first: number;
  /** How many numbers, counted from the first and around the end, were never handed out. */
  #neverUsed: number;
  /** Numbers that came back, the oldest first: tracked connections of a machine outlive it for a while. */
  readonly #back: number[] = [];

  /** Begins with these numbers taken. */
  constructor(capacity: number, inUse: readonly number[]) {
    this.#capacity = capacity;
    this.#takenEarly = new Set(inUse);
    // After a restart the order of release is forgotten: numbers above those in use were most likely given back earliest.
    this.#first = inUse.length === 0 ? 0 : (Math.max(...inUse) + 1) % capacity;
    this.#neverUsed = capacity;
  }

  /** A free number, or undefined: one never used before one used, the one given back longest ago before the others. */
  take(): number | undefined {
    while (this.#neverUsed > 0) {
      const index = (this.#first + this.#capacity - this.#neverUsed) % this.#capacity;
      this.#neverUsed -= 1;
      if (!this.#takenEarly.has(index)) return index;
    }
    return this.#back.shift();
  }

  /** Takes this number. False when it is not free. */
  takeThis(index: number): boolean {
    const place = this.#back.indexOf(index);
    if (place >= 0) {
      this.#back.splice(place, 1);
      return true;
    }
    const turn = (index - this.#first + this.#capacity) % this.#capacity;
    const hadItsTurn = turn < this.#capacity - this.#neverUsed;
    if (index >= this.#capacity || hadItsTurn || this.#takenEarly.has(index)) return false;
    this.#takenEarly.add(index);
    return true;
  }

  /** The number is free again. */
  giveBack(index: number): void {
    this.#back.push(index);
  }
}
