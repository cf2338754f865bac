// A tcp connection within this process, both ends as descriptors: what is sent rests in the kernel until it is read.

import {
  acceptOne,
  closeDescriptor,
  connectResult,
  inetAddress,
  localPort,
  openListener,
  startConnect,
} from '../../src/os/socket.js'

export interface Connection {
  ours: number
  theirs: number
}

export function connection(): Connection {
  const listener = openListener(inetAddress('127.0.0.1', 0), 1)
  const { fd: ours } = startConnect(inetAddress('127.0.0.1', localPort(listener)))
  let theirs: number | undefined
  while (theirs === undefined) theirs = acceptOne(listener)
  if (connectResult(ours) !== 0) throw new Error('no connection')
  closeDescriptor(listener)
  return { ours, theirs }
}
