// What a test's child processes get of its environment.

/**
 * Ours without the test runner's loaders, which every process of Node would take along: they double its start. And without
 * its wish for colours, which it has on a terminal: what a child writes is compared.
 */
export function plainEnvironment(): NodeJS.ProcessEnv {
  const { FORCE_COLOR: _, ...environment } = process.env
  return { ...environment, NODE_OPTIONS: '' }
}
