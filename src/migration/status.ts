// The states of a migration, QEMU's.

export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'active'
  | 'device'
  | 'completed'
  | 'failed'
  | 'cancelling'
  | 'cancelled'
