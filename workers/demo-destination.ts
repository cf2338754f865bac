// The destination process of `multifd demo`.

import { runDemoDestination } from '../src/cli/demo/destination.js'

runDemoDestination()
