// What broken system calls and broken calls of other libraries have in common.

import type { FaultName } from '../faults.js'
import { setErrno } from './libc.js'

/** What the thread is. */
export type CallPlace = `${'source' | 'destination'} ${'main' | 'channel'}` | 'snapshot'

type Calls<Library> = Partial<Record<keyof Library, (...args: never[]) => unknown>>
/** Makes broken calls from those that are there, which may be broken already. */
export type Breaker<Library> = (calls: Library, happens: () => boolean) => Calls<Library>
/** Which calls a point breaks, where. */
export type Broken<Library> = Partial<Record<FaultName, Partial<Record<CallPlace, Breaker<Library>>>>>

/** A storm lets every so many'th call through. */
export const STORM = 4

/** What a call returns that has failed with an error number. */
export function failing(number: number): number {
  setErrno(number)
  return -1
}

/** The calls as they are, with any arguments. */
export function anyCall<Library>(calls: Library, name: keyof Library): (...args: unknown[]) => unknown {
  return calls[name] as (...args: unknown[]) => unknown
}

/** Ends the thread in a call: a process of its own would end; this is a thread's own process.exit. */
export function die<Library>(name: keyof Library): Breaker<Library> {
  return (calls, happens) => {
    const call = anyCall(calls, name)
    const dying = (...args: unknown[]): unknown => {
      if (happens()) process.exit(1)
      return call(...args)
    }
    return { [name]: dying } as unknown as Calls<Library>
  }
}
