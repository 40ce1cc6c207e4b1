/** Server-sent events that say that the store has something new: the newest position of its feed. One timer serves every page. */
import type { StoreAdapter } from 'nvent-native/native'

/** ms */
const POLL_INTERVAL = 1_000
/** ms */
const HEARTBEAT_INTERVAL = 15_000

type Send = (text: string) => void
const clients = new Set<Send>()
let timer: ReturnType<typeof setInterval> | undefined
let last: string | null | undefined

export async function followHead(store: StoreAdapter, signal: AbortSignal): Promise<Response> {
  const encoder = new TextEncoder()
  let leave = () => {}
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      // A client that does not read misses a note, and no more.
      const send: Send = text => (controller.desiredSize ?? 0) > -16 && controller.enqueue(encoder.encode(text))
      const heartbeat = setInterval(send, HEARTBEAT_INTERVAL, ': heartbeat\n\n').unref()
      leave = () => {
        leave = () => {}
        clearInterval(heartbeat)
        remove(send)
        try {
          controller.close()
        }
        catch {
          // The client has gone already.
        }
      }
      signal.addEventListener('abort', () => leave(), { once: true })
      send('retry: 1000\nevent: head\ndata: \n\n')
      add(send, store)
    },
    cancel: () => leave(),
  })
  return new Response(body, {
    headers: { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no' },
  })
}

function add(send: Send, store: StoreAdapter) {
  clients.add(send)
  timer ??= setInterval(async () => {
    const head = await store.feed.head().catch(() => last)
    if (head === last) return
    last = head
    for (const send of clients) send('event: head\ndata: \n\n')
  }, POLL_INTERVAL).unref()
}

function remove(send: Send) {
  clients.delete(send)
  if (clients.size > 0) return
  clearInterval(timer)
  timer = undefined
}
