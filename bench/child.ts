// Child processes of the benchmark.

import { CallChild, type Calls, tell } from '../test/support/calls.js'
import { STEP_MS } from './pairing.js'

export { serve } from '../test/support/calls.js'

const SET_UP = 'set-up'

/** A child process that runs a file of bench/processes and serves `C`. A step may take {@link STEP_MS}. */
export class Child<C extends Calls<C>> extends CallChild<C> {
  constructor(name: string) {
    super(new URL(`./processes/${name}.js`, import.meta.url), name, { patienceMs: STEP_MS })
  }

  /** Called when the child says that it is set up: see {@link tellSetUp}. */
  set onSetUp(action: () => void) {
    this.onEvent = (event) => {
      if (event === SET_UP) action()
    }
  }
}

/** For a child that migrates: its set-up is over. */
export function tellSetUp(): void {
  tell(SET_UP)
}
