/** Makes `await using` end an object. The property is not enumerable: a handle that is printed or compared shows its data. */
export function disposable<T extends object>(object: T, end: () => Promise<void>): T & { [Symbol.asyncDispose]: () => Promise<void> } {
  return Object.defineProperty(object, Symbol.asyncDispose, { value: end }) as T & { [Symbol.asyncDispose]: () => Promise<void> }
}
