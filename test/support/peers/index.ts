// Peers made by hand, and what tests of migrations share.

export { type Expected, rejection, tells, worksAgain } from './check.js'
export { Child, type Order } from './child.js'
export { HandDestination } from './destination.js'
export {
  allDescriptors,
  idleThreads,
  leavesNothing,
  leftovers,
  migrationThreads,
  openDescriptors,
  threadsNamed,
} from './leftovers.js'
export { mappingsLeft, type OwnMappings, ownMappings, sharedMemory, sharedMemoryLeft } from './mappings.js'
export * from './memory.js'
export { Opener } from './opener.js'
export { HandSource, type HandSourceOptions } from './source.js'
export * from './stamp.js'
export * from './stream.js'
export { Wire } from './wire.js'
export { Writer } from './writer.js'
