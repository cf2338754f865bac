// The package's public face.

export { ERROR_CODES, type ErrorCode, MultifdError } from './errors.js'
export type { Logger } from './log.js'
export { type ObservedMigrations, registerMetrics } from './metrics/metrics.js'
export { MetricsServer } from './metrics/server.js'
export { MigrationDestination, type MigrationDestinationOptions, type ReceiveOptions } from './migration/destination.js'
export {
  type DirtyRate,
  DirtyRateMeter,
  type DirtyRateMode,
  type DirtyRateOptions,
} from './migration/dirty-rate.js'
export { DEFAULT_PARAMETERS, type MigrationParameters } from './migration/parameters.js'
export { type MigrateOptions, MigrationSource, type MigrationSourceOptions } from './migration/source.js'
export type { MigrationStatistics, PassInfo, RamStatistics, XbzrleCacheStatistics } from './migration/statistics.js'
export type { MigrationStatus } from './migration/status.js'
export { endIdleThreads } from './migration/thread-pools.js'
export type { ThreadInfo } from './migration/threads.js'
export { QmpClient, type QmpClientOptions, type QmpGreeting } from './qmp/client.js'
export type { QmpTarget } from './qmp/control.js'
export { QmpError } from './qmp/error.js'
export { QEMU_DEFAULTS } from './qmp/names.js'
export { QmpServer, type QmpServerOptions } from './qmp/server.js'
export type { TlsObjects } from './qmp/tls.js'
export type { AdoptableMemory } from './ram/adopted-memory.js'
export { RamBlock, type RamBlockHandle, type RamBlockOptions } from './ram/block.js'
export { type DirtyLogKind, requireDirtyLog } from './ram/dirty-log.js'
export type { RamDiscardListener, RamDiscardManager, SparseOptions } from './ram/discard-manager.js'
export { type PreallocateOptions, preallocate } from './ram/prealloc.js'
export { type FaultOrder, FaultPoints } from './shm/fault-points.js'
export { readSnapshot, type Snapshot, type SnapshotBlock } from './snapshot/file.js'
export { Guest, GuestReceiver, type ReceiveGuestOptions, type SendGuestOptions } from './snapshot/guest.js'
export { type InspectedBlock, type InspectedDevice, inspectSnapshot, type SnapshotInfo } from './snapshot/inspect.js'
export { type ReceiveSnapshotOptions, SnapshotReceiver } from './snapshot/receive.js'
export { type SavedSnapshot, type SaveSnapshotOptions, saveSnapshot } from './snapshot/save.js'
export { type SendSnapshotOptions, SnapshotSender } from './snapshot/send.js'
export type { TlsOptions } from './tls/options.js'
export * as vmstate from './vmstate/index.js'
