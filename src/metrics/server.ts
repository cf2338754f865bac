// Metrics over HTTP, for Prometheus to scrape.

import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { MultifdError } from '../errors.js'
import { type ObservedMigrations, registerMetrics } from './metrics.js'

const PATH = '/metrics'

export class MetricsServer {
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  /**
   * Serves the metrics of migrations at `http://HOST:PORT/metrics`.
   *
   * @param at an empty host is this machine's loopback, port 0 a free one
   * @throws MultifdError ERR_MULTIFD_LISTEN
   */
  static async listen(
    at: { host: string; port: number },
    migrations: ObservedMigrations | (() => ObservedMigrations),
  ): Promise<MetricsServer> {
    const [{ createServer }, { Registry }] = await Promise.all([import('node:http'), import('prom-client')])
    const registry = new Registry()
    await registerMetrics(registry, migrations)
    const server = createServer(async (request, response) => {
      if (request.url?.split('?')[0] !== PATH) {
        response.writeHead(404).end(`metrics are at ${PATH}\n`)
        return
      }
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        response.writeHead(405, { allow: 'GET, HEAD' }).end()
        return
      }
      const text = await registry.metrics()
      response.writeHead(200, { 'content-type': registry.contentType }).end(text)
    })
    const { port } = at
    const host = at.host || '127.0.0.1'
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => {
        const { code, syscall } = cause
        const message = `metrics can not be served on ${host}:${port}: ${code}`
        reject(new MultifdError('ERR_MULTIFD_LISTEN', message, { errnoName: code, syscall, cause }))
      })
      server.listen({ host, port }, resolve)
    })
    // Whoever scrapes does not hold the program up.
    server.unref()
    return new MetricsServer(server)
  }

  /** Where they are, with the real port. */
  get url(): string {
    const { address, port, family } = this.#server.address() as AddressInfo
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}${PATH}`
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (!this.#server.listening) return
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.#server.closeAllConnections()
    await closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
