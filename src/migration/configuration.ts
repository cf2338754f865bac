// What of a source's configuration a destination has to agree to.

import { MultifdError } from '../errors.js'
import { type Configuration, IGNORE_SHARED } from '../wire/stream.js'

/**
 * @param ourUuid the guest's, where it is to be checked
 * @throws MultifdError ERR_MULTIFD_MACHINE for another uuid, a mapped-ram file, or shared memory that one side alone leaves
 * where it is; ERR_MULTIFD_UNSUPPORTED, by its name, for another capability
 */
export function checkConfiguration(
  { capabilities = [], uuid }: Configuration,
  ourUuid: string | undefined,
  { ignoreShared }: { ignoreShared: boolean },
): void {
  if (capabilities.includes('mapped-ram')) {
    const message = 'it is a mapped-ram file, and no stream: a snapshot to be sent from, or inspected, where it lies'
    throw new MultifdError('ERR_MULTIFD_MACHINE', message)
  }
  const unknown = capabilities.find((name) => name !== IGNORE_SHARED)
  if (unknown !== undefined) {
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', `capability '${unknown}' of the source is not supported`)
  }
  const ignored = capabilities.includes(IGNORE_SHARED)
  if (ignored !== ignoreShared) {
    const message = `capability '${IGNORE_SHARED}' is ${ignored ? 'on' : 'off'} at the source, and ${ignored ? 'off' : 'on'} here (ignoreShared)`
    throw new MultifdError('ERR_MULTIFD_MACHINE', message)
  }
  if (uuid !== undefined && ourUuid !== undefined && uuid !== ourUuid) {
    throw new MultifdError('ERR_MULTIFD_MACHINE', `uuid ${uuid} is not the expected ${ourUuid}`)
  }
}
