// What a test's process must not leave behind, however it ends: also by a signal, as when a test takes too long.

const actions = new Set<() => void>()
let armed = false

/** Runs `action` (synchronously) when the process ends, unless the function that is returned has been called. */
export function onProcessEnd(action: () => void): () => void {
  if (!armed) arm()
  actions.add(action)
  return () => actions.delete(action)
}

function arm(): void {
  armed = true
  process.on('exit', runAll)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      runAll()
      process.kill(process.pid, signal)
    })
  }
}

// What was begun last ends first: a folder goes after the processes that write into it.
function runAll(): void {
  for (const action of [...actions].reverse()) action()
  actions.clear()
}
