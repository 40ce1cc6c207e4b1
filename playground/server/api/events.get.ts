/** What happens, as it happens: server-sent events for the page. */
export default defineEventHandler((event) => {
  const stream = createEventStream(event)
  const stop = listen(({ event, data }) => stream.push({ event, data: JSON.stringify(data ?? null) }))
  stream.onClosed(stop)
  trackEventStream(stream)
  stream.push({ event: 'hello', data: '' })
  return stream.send()
})
