// Real QEMUs for tests: found, started with a guest of ours, migrated, and their memory compared.
export * from './changes.js'
export * from './cleanup.js'
export * from './descriptors.js'
export * from './find.js'
export * from './guest.js'
export * from './pattern.js'
export * from './program.js'
export * from './qmp.js'
