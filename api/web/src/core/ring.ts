// A list that grows and shrinks at both ends, whose items keep their numbers: the n-th item ever
// pushed has the number n, and items put in front have the numbers before, down to negative ones.
//
// It is an array with a head. When the unused space before the head is half of the array, the array
// is copied without it, so `shift` costs O(1) on average. `prepend` copies the array, which is fine
// because items come a page at a time.

export class Ring<T> {
  private items: (T | undefined)[] = [];
  private head = 0;
  /** The number of the first item that is still held. */
  first = 0;

  get length(): number {
    return this.items.length - this.head;
  }

  /** The number that the next pushed item will get. */
  get end(): number {
    return this.first + this.length;
  }

  push(item: T): number {
    this.items.push(item);
    return this.end - 1;
  }

  /** Puts items in front: the last of them gets the number `first - 1`. */
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
