import type { NitroApp } from 'nitropack'

/** Runs `handler` after every other handler of the hook, also those that are added later. */
export function hookLast(nitroApp: NitroApp, name: string, handler: () => void | Promise<void>): void {
  const remove = nitroApp.hooks.beforeEach((event) => {
    if (event.name !== name) return
    remove()
    nitroApp.hooks.hook(name as 'close', handler)
  })
}
