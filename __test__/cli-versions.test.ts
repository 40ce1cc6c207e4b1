import { expect, it } from 'vitest'
import { isNodeSupported, isRedisSupported } from '../lib/cli/versions'

it('doctor accepts the versions that the documentation names', () => {
  const node = ['18.20.0', '20.18.9', '20.19.0', '21.9.0', '22.11.0', '22.12.0', '23.9.0', '24.0.0', '25.1.0']
  expect(node.filter(isNodeSupported)).toEqual(['20.19.0', '22.12.0', '24.0.0', '25.1.0'])
  const redis = ['', '5.0.14', '6.0.20', '6.1.0', '6.2.0', '6.2.5', '7.0.0', '7.2.4', '8.0.1', '10.0.0']
  expect(redis.filter(isRedisSupported)).toEqual(['6.2.0', '6.2.5', '7.0.0', '7.2.4', '8.0.1', '10.0.0'])
})
