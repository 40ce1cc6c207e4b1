/** `POST {path}/webhooks/{trigger}`: fires a trigger by a signed request. */
import { defineEventHandler, getRouterParam, toWebRequest } from 'h3'
import { handleWebhook } from 'nvent-native/native'

export default defineEventHandler(event => handleWebhook(decodeURIComponent(getRouterParam(event, 'trigger')!), toWebRequest(event)))
