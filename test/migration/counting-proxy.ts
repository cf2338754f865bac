// A tcp proxy between a source and a destination that counts the bytes of each way.

import { createConnection, createServer, type Server, type Socket } from 'node:net'

export class CountingProxy {
  /** To the destination, and back. */
  readonly bytes = { there: 0, back: 0 }
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
  }

  /** @param uri where the destination listens, tcp */
  static async start(uri: string): Promise<CountingProxy> {
    const port = Number(uri.split(':').at(-1))
    // Who ends a direction ends that one only.
    const server = createServer({ allowHalfOpen: true })
    const proxy = new CountingProxy(server)
    server.on('connection', (near) => {
      const far = createConnection({ host: '127.0.0.1', port, allowHalfOpen: true })
      near.on('data', (chunk) => (proxy.bytes.there += chunk.length))
      far.on('data', (chunk) => (proxy.bytes.back += chunk.length))
      near.pipe(far)
      far.pipe(near)
      for (const socket of [near, far]) {
        socket.on('error', () => {})
        proxy.#sockets.add(socket)
      }
      near.on('close', () => far.destroy())
      far.on('close', () => near.destroy())
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get uri(): string {
    return `tcp:127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
  }
}
