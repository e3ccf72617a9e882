// A list that grows at its end and is dropped from its start, with numbers that stay: the n-th item ever pushed is number n.
//
// An array with a head; the room before the head is given back when it is half of the array, so both ends cost O(1) on average.

export class Ring<T> {
  private items: (T | undefined)[] = [];
  private head = 0;
  /** The number of the first item still held, which is also how many were dropped. */
  first = 0;

  get length(): number {
    return this.items.length - this.head;
  }

  /** The number the next item will get. */
  get end(): number {
    return this.first + this.length;
  }

  push(item: T): number {
    this.items.push(item);
    return this.end - 1;
  }

  get(number: number): T | undefined {
    return number < this.first ? undefined : this.items[this.head + number - this.first];
  }

  shift(): T | undefined {
    if (this.length === 0) {
      return undefined;
    }
    const item = this.items[this.head];
    this.items[this.head] = undefined;
    this.head += 1;
    this.first += 1;
    if (this.head > 1024 && this.head * 2 > this.items.length) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
    return item;
  }
}
