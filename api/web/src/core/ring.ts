// A list that grows and is dropped at both ends, with numbers that stay: the n-th item ever pushed is number n, and what is put
// in front has the numbers before it, negative ones included.
//
// An array with a head; the room before the head is given back when it is half of the array, so dropping costs O(1) on average.
// Putting items in front copies the array: they come by the page.

export class Ring<T> {
  private items: (T | undefined)[] = [];
  private head = 0;
  /** The number of the first item still held. */
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

  /** Puts items in front: the last of them gets the number before the first. */
  prepend(items: readonly T[]): void {
    this.items = [...items, ...this.items.slice(this.head)];
    this.head = 0;
    this.first -= items.length;
  }

  pop(): T | undefined {
    return this.length === 0 ? undefined : this.items.pop();
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
