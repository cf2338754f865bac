// The source's coordinator thread: one Piscina task for the length of a migration.

export { runSource as default } from '../src/migration/source-coordinator.js'
