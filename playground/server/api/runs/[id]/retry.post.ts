import { retryRun } from 'nvent-native/native'

/** Lets a failed run go on at the step that failed. */
export default defineEventHandler(event => retryRun(order, getRouterParam(event, 'id')!))
