// What a test's child processes get of its environment.

/** Ours without the test runner's loaders, which every process of Node would take along: they double its start. */
export function plainEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env, NODE_OPTIONS: '' }
}
