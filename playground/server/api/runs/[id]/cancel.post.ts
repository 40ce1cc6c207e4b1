import { cancelFlow } from 'nvent-native/native'

/** Cancels a run that is under way. */
export default defineEventHandler(event => cancelFlow(order, getRouterParam(event, 'id')!, 'Cancelled on the page'))
