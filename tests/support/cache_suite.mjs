// Runs a copy of http-tests/cache-tests against a cache: node cache_suite.mjs DIRECTORY BASE [ID]
//
// Prints each test and what became of it as JSON. The layout differs between releases.
import { existsSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const AT_ONCE = 75
const [directory, base, only] = process.argv.slice(2)
const engine = existsSync(path.join(directory, 'test-engine')) ? 'test-engine' : '.'
const load = async (...parts) => import(pathToFileURL(path.resolve(directory, ...parts)))

const { runTests, getResults } = await load(engine, 'client', 'runner.mjs')
const suites = (await load('tests', 'index.mjs')).default.map(suite => ({
  ...suite,
  tests: suite.tests.filter(test => !only || test.id === only)
}))
const tests = suites.flatMap(suite => suite.tests)
if (only) tests.forEach(test => { test.dump = true })

if (engine === '.') {
  // Older releases are given the function that they fetch with.
  const { default: fetch } = await load('..', 'node-fetch', 'lib', 'index.mjs')
  await runTests(suites, fetch, false, base, AT_ONCE)
} else {
  await runTests(suites, false, base, AT_ONCE)
}
const results = getResults()
const report = tests.filter(test => test.id in results).map(test => ({
  id: test.id,
  kind: test.kind ?? 'required',
  needs: test.depends_on ?? [],
  error: results[test.id] === true ? null : results[test.id]
}))
console.log(JSON.stringify(report))
process.exit(0)
