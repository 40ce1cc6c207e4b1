/** `POST {path}/webhooks/{trigger}`: fires a trigger by a signed request. */
import { defineEventHandler, toWebRequest } from 'h3'
import { handleWebhook } from 'nvent-native/native'
import { pathParameter } from './parameter.js'

export default defineEventHandler(event => handleWebhook(pathParameter(event, 'trigger'), toWebRequest(event)))
