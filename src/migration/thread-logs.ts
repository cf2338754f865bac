// The lines of a migration's threads, in the program's thread: each goes to a child logger of its thread and channel.

import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import type { Logger, LogLine, LogTask } from '../log.js'

/** One thread's, from its start to its end. */
export interface OpenLog {
  /** For the thread, with its port to be transferred; undefined where nobody wants to hear it. */
  task?: LogTask & { port: MessagePort }
  /** Hears what is still on its way. */
  close(): void
}

/** @param bindings of the thread's child logger */
export function openThreadLog(logger: Logger, bindings: { thread: string; channel?: number }): OpenLog {
  if (!logger.isLevelEnabled?.('debug')) return { close() {} }
  const trace = logger.trace !== undefined && logger.isLevelEnabled('trace')
  const child = logger.child?.(bindings)
  const { port1, port2 } = new MessageChannel()
  const hear = ({ level, at, fields, message }: LogLine): void => {
    const all = child ? { at, ...fields } : { ...bindings, at, ...fields }
    ;(child ?? logger)[level]?.(all, message)
  }
  port1.on('message', hear)
  // The thread itself holds the program up, and not its log.
  port1.unref()
  return {
    task: { port: port2, trace },
    close() {
      port1.off('message', hear)
      for (let last = receiveMessageOnPort(port1); last; last = receiveMessageOnPort(port1)) hear(last.message)
      port1.close()
    },
  }
}
