// What each command does. Arguments have been checked by schema.ts.

import type { MigrationControl } from './control.js'
import { QmpError } from './error.js'
import type { Arguments, CommandName } from './schema.js'

/** The version of QEMU whose QMP this is, and who speaks it. */
export interface QmpVersion {
  qemu: { micro: number; minor: number; major: number }
  package: string
}

export interface CommandContext {
  control: MigrationControl
  version: QmpVersion
  /** Ends the server once the reply is out. */
  quit(): void
}

type Handler<Name extends CommandName> = (context: CommandContext, given: Arguments<Name>) => unknown

const PAUSE_TEXT = 'migrate-pause is currently only supported during postcopy-active or postcopy-recover state'

/** A command without a result returns an empty object. `qmp_capabilities` is the session's. */
export const COMMANDS: { [Name in Exclude<CommandName, 'qmp_capabilities'>]: Handler<Name> } = {
  'query-version': ({ version }) => version,
  'query-commands': () => COMMAND_NAMES.map((name) => ({ name })),
  'query-status': ({ control }) => control.runState(),
  quit: ({ quit }) => quit(),
  migrate: ({ control }, given) => control.migrate(given),
  'migrate-incoming': ({ control }, given) => control.incoming(given),
  migrate_cancel: ({ control }) => control.cancel(),
  'migrate-continue': ({ control }, { state }) => control.continue(state),
  'migrate-pause': () => {
    throw new QmpError(PAUSE_TEXT)
  },
  'migrate-set-capabilities': ({ control }, { capabilities }) => control.setCapabilities(capabilities),
  'query-migrate-capabilities': ({ control }) => control.settings.capabilities(),
  'migrate-set-parameters': ({ control }, given) => control.setParameters(given),
  'query-migrate-parameters': ({ control }) => control.settings.parameters(),
  'query-migrate': ({ control }) => control.info(),
  'query-migrationthreads': ({ control }) => control.threads(),
  'calc-dirty-rate': ({ control }, given) => control.dirtyRate.calculate(given),
  'query-dirty-rate': ({ control }, given) => control.dirtyRate.info(given),
  yank: ({ control }, { instances }) => {
    if (instances.some(({ type }) => type !== 'migration') || (instances.length > 0 && !control.running)) {
      throw new QmpError('Instance not found', 'DeviceNotFound')
    }
    if (instances.length > 0) control.yank()
  },
  'query-yank': ({ control }) => (control.running ? [{ type: 'migration' }] : []),
}

export const COMMAND_NAMES = ['qmp_capabilities', ...Object.keys(COMMANDS)] as CommandName[]

/** Commands that may run out of band: they wait for nothing. */
export const OUT_OF_BAND: ReadonlySet<string> = new Set(['migrate-pause', 'yank', 'query-yank'])
