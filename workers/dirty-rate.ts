// The thread that measures a dirty rate: one Piscina task a measurement.

export { runDirtyRate as default } from '../src/migration/dirty-rate-thread.js'
