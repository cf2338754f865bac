// QMP's names of a migration's capabilities and parameters, what they are here, and what QEMU begins with.
//
// Source: QEMU 10.0, qapi/migration.json.

import type { MigrationParameters } from '../migration/parameters.js'

/** Capabilities, and the parameter that each is here; undefined: it can only be off. */
export const CAPABILITIES = {
  xbzrle: 'xbzrle',
  'rdma-pin-all': undefined,
  'auto-converge': 'autoConverge',
  'zero-blocks': undefined,
  // Whether MIGRATION and MIGRATION_PASS are told: the server's own.
  events: 'events',
  'postcopy-ram': undefined,
  'x-colo': undefined,
  'release-ram': undefined,
  'return-path': 'returnPath',
  'pause-before-switchover': 'pauseBeforeSwitchover',
  multifd: 'multifd',
  'dirty-bitmaps': undefined,
  'postcopy-blocktime': undefined,
  'late-block-activate': undefined,
  'x-ignore-shared': 'ignoreShared',
  'validate-uuid': undefined,
  'background-snapshot': undefined,
  'zero-copy-send': 'zeroCopySend',
  'postcopy-preempt': undefined,
  'switchover-ack': 'switchoverAck',
  'dirty-limit': undefined,
  'mapped-ram': undefined,
} as const satisfies Record<string, keyof MigrationParameters | 'events' | undefined>

export type CapabilityName = keyof typeof CAPABILITIES
export const CAPABILITY_NAMES = Object.keys(CAPABILITIES) as CapabilityName[]

/** Parameters that are the engine's. */
export const PARAMETERS = {
  'cpu-throttle-initial': 'cpuThrottleInitial',
  'cpu-throttle-increment': 'cpuThrottleIncrement',
  'cpu-throttle-tailslow': 'cpuThrottleTailslow',
  'max-cpu-throttle': 'maxCpuThrottle',
  'throttle-trigger-threshold': 'throttleTriggerThreshold',
  'max-bandwidth': 'maxBandwidth',
  'downtime-limit': 'downtimeLimit',
  'multifd-channels': 'multifdChannels',
  'multifd-compression': 'multifdCompression',
  'multifd-zlib-level': 'multifdZlibLevel',
  'multifd-zstd-level': 'multifdZstdLevel',
  'xbzrle-cache-size': 'xbzrleCacheSize',
  'zero-page-detection': 'zeroPageDetection',
} as const satisfies Record<string, keyof MigrationParameters>

export type ParameterName = keyof typeof PARAMETERS
export const PARAMETER_NAMES = Object.keys(PARAMETERS) as ParameterName[]

/** Parameters that have one value here, which is QEMU's default. */
export const FIXED = {
  'announce-initial': 50,
  'announce-max': 550,
  'announce-rounds': 5,
  'announce-step': 100,
  'avail-switchover-bandwidth': 0,
  'direct-io': false,
  'max-postcopy-bandwidth': 0,
  mode: 'normal',
  'multifd-qatzip-level': 1,
  'vcpu-dirty-limit': 1,
  'x-checkpoint-delay': 20_000,
  'x-vcpu-dirty-limit-period': 1000,
} as const

export type FixedName = keyof typeof FIXED

/** QEMU's defaults where they are not ours. For a program that is driven as a QEMU is. */
export const QEMU_DEFAULTS = {
  multifd: false,
  multifdCompression: 'none',
  returnPath: false,
  maxBandwidth: 134_217_728,
} as const satisfies Partial<MigrationParameters>
