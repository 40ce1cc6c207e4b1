/** A queue of one's own: flow wiring takes any object that has `enqueue`. This one runs jobs in the process, and keeps nothing. */
export class LocalQueue {
  #handlers = new Map()
  #ids = new Set()

  registerWorker(queue, name, handler) {
    this.#handlers.set(`${queue}/${name}`, handler)
  }

  startProcessingQueue() {}

  async enqueue(queue, { name, data, opts }) {
    const id = opts?.jobId ?? crypto.randomUUID()
    if (!this.#ids.has(id)) {
      this.#ids.add(id)
      setImmediate(this.#handlers.get(`${queue}/${name}`), { id, name, data, attemptsMade: 0 })
    }
    return id
  }
}
