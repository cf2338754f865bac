// The package's public face.

export { ERROR_CODES, type ErrorCode, MultifdError } from './errors.js'
export type { Logger } from './log.js'
export { MigrationDestination, type MigrationDestinationOptions } from './migration/destination.js'
export { DEFAULT_PARAMETERS, type MigrationParameters } from './migration/parameters.js'
export { type MigrateOptions, MigrationSource, type MigrationSourceOptions } from './migration/source.js'
export type { MigrationStatistics, PassInfo, RamStatistics } from './migration/statistics.js'
export type { MigrationStatus } from './migration/status.js'
export type { ThreadInfo } from './migration/threads.js'
export { RamBlock, type RamBlockHandle } from './ram/block.js'
