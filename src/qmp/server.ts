// The QMP server: listens on unix sockets and tcp ports, and gives every connection a session over the same migration.

import { existsSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { MultifdError } from '../errors.js'
import { removeStale } from '../io/listener.js'
import { formatUri, parseUri } from '../io/uri.js'
import { type Logger, noLogger } from '../log.js'
import type { QmpVersion } from './commands.js'
import { MigrationControl, type QmpTarget } from './control.js'
import type { Session } from './session.js'

/** QMP is QEMU 10.0's; the package says who speaks it. */
const VERSION: QmpVersion = { qemu: { micro: 0, minor: 0, major: 10 }, package: 'multifd' }

export interface QmpServerOptions extends QmpTarget {
  logger?: Logger
}

/**
 * Lets whatever drives a QEMU's migration by QMP drive a source and a destination of this program. Migrations that the
 * program begins itself are seen and can be cancelled in the same way.
 */
export class QmpServer {
  readonly #control: MigrationControl
  readonly #logger: Logger
  readonly #servers = new Set<Server>()
  readonly #sessions = new Map<Socket, Session>()
  #closed = false

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT without a source and a destination */
  constructor({ logger, ...target }: QmpServerOptions) {
    this.#logger = logger ?? noLogger
    this.#control = new MigrationControl(target)
    this.#control.on('event', (event, data) => this.#tell(event, data))
  }

  /**
   * Listens on a further `unix:PATH` or `tcp:HOST:PORT`. Whoever can connect has the migration, and may have this process
   * connect wherever it can: keep it to yourself.
   *
   * @returns the URI with the real port
   * @throws MultifdError ERR_MULTIFD_LISTEN, ERR_MULTIFD_ARGUMENT, ERR_MULTIFD_STATE after `close`
   */
  async listen(uri: string): Promise<string> {
    const parsed = parseUri(uri)
    if (parsed.transport !== 'tcp' && parsed.transport !== 'unix')
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'QMP listens on tcp: or unix:')
    // Loads what checks arguments: a tenth of a second, which programs that do not listen are spared.
    const { Session } = await import('./session.js')
    if (this.#closed) throw new MultifdError('ERR_MULTIFD_STATE', 'the QMP server is closed')
    const context = { control: this.#control, version: VERSION, quit: () => this.#quit() }
    const server = createServer((socket) => this.#accept(socket, new Session(socket, context, this.#logger)))
    const where =
      parsed.transport === 'unix' ? { path: parsed.path } : { host: parsed.host || '127.0.0.1', port: parsed.port }
    if (parsed.transport === 'unix') removeStale(parsed.path)
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => {
        const { syscall } = cause
        // Node says EACCES for a folder that is not there.
        const homeless = parsed.transport === 'unix' && !existsSync(dirname(parsed.path))
        const code = homeless ? 'ENOENT' : cause.code
        reject(new MultifdError('ERR_MULTIFD_LISTEN', `${uri}: ${code}`, { errnoName: code, syscall, cause }))
      })
      server.listen(where, resolve)
    })
    this.#servers.add(server)
    const address = server.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    const bound = formatUri(parsed.transport === 'tcp' ? { ...parsed, host: where.host!, port } : parsed)
    this.#logger.info({ uri: bound }, `QMP on ${bound}`)
    return bound
  }

  /** Ends every connection; a migration that runs goes on. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#control.close()
    for (const session of this.#sessions.values()) session.end()
    await Promise.all([...this.#servers].map((server) => new Promise((resolve) => server.close(resolve))))
    this.#servers.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #accept(socket: Socket, session: Session): void {
    this.#sessions.set(socket, session)
    socket.once('close', () => this.#sessions.delete(socket))
  }

  #tell(event: string, data?: object): void {
    const now = performance.timeOrigin + performance.now()
    const timestamp = { seconds: Math.floor(now / 1000), microseconds: Math.floor((now % 1000) * 1000) }
    for (const session of this.#sessions.values()) session.tell({ timestamp, event, ...(data && { data }) })
  }

  #quit(): void {
    // After the reply.
    setImmediate(async () => {
      this.#tell('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' })
      await this.close()
      await this.#control.target.quit?.()
    })
  }
}
