/** Serialises starts and stops; the first begins at once, so that an append right after `start()` is routed. */
export class Turns {
  private last: Promise<void> | undefined

  take(work: () => Promise<void>): Promise<void> {
    const mine: Promise<void> = this.last ? this.last.then(work, work) : work()
    this.last = mine
    const over = (): void => {
      if (this.last === mine) this.last = undefined
    }
    mine.then(over, over)
    return mine
  }
}
