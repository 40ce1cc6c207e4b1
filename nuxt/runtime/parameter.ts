import { createError, getRouterParam, type H3Event } from 'h3'

/** Returns a part of the path, decoded. h3 decodes some escapes and leaves others. Throws 400 where it is no UTF-8. */
export function pathParameter(event: H3Event, name: string): string {
  try {
    return decodeURIComponent(getRouterParam(event, name)!)
  }
  catch {
    throw createError({ statusCode: 400, statusMessage: 'Bad Request', message: `${name}: not usable as part of a URL` })
  }
}
