// What a source says of a guest besides its pages: as it came with the guest.

import type { IgnoredShared } from '../migration/load-target.js'
import type { MigrationSourceOptions, StreamExtras } from '../migration/source.js'
import type { Configuration } from '../wire/stream.js'

/** A guest's stream without its RAM: of a snapshot, or of a guest in memory. */
export interface GuestStream
  extends Pick<StreamExtras, 'ramSectionId' | 'beforeRam' | 'afterRam' | 'switchoverStart' | 'deviceState'> {
  configuration: Configuration
  ignoredShared?: IgnoredShared
}

export function extrasOf(guest: GuestStream): StreamExtras {
  const { configuration, ramSectionId, beforeRam, afterRam, switchoverStart, deviceState, ignoredShared } = guest
  const { uuid, pageBits } = configuration
  return {
    ramSectionId,
    beforeRam,
    afterRam,
    switchoverStart,
    deviceState,
    validateUuid: uuid !== undefined,
    ...(pageBits === undefined ? {} : { pageBits }),
    ...(ignoredShared && { ignoredShared }),
  }
}

/** The same options without those that are not given. */
export function given<K extends keyof MigrationSourceOptions>(
  options: {
    [P in K]: MigrationSourceOptions[P] | undefined
  },
): Partial<Pick<MigrationSourceOptions, K>> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<
    Pick<MigrationSourceOptions, K>
  >
}
