// Encodes files with the real @autonomys/auto-dag-data and prints what it made, as JSON.
//
//   node encode_files.mjs NODE_MODULES FILES
//
// FILES is JSON: [{"path": ..., "name": ... or absent}, ...]. The answer is a list in the same
// order: {"head": CID, "nodes": [CID, ...]}.
import { createReadStream, statSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [nodeModules, files] = process.argv.slice(2)
const load = (path) => import(pathToFileURL(join(nodeModules, path)).href)
const { processFileToIPLDFormat, cidToString } = await load('@autonomys/auto-dag-data/dist/index.js')
const { MemoryBlockstore } = await load('blockstore-core/dist/src/index.js')

const encode = async ({ path, name }) => {
  const store = new MemoryBlockstore()
  const size = BigInt(statSync(path).size)
  const head = await processFileToIPLDFormat(store, createReadStream(path), size, name)
  const nodes = []
  for await (const { cid } of store.getAll()) nodes.push(cid)
  // The store names blocks by multihash alone; give them the head's version and codec.
  const named = nodes.map((cid) => cidToString(head.constructor.create(1, head.code, cid.multihash)))
  return { head: cidToString(head), nodes: named }
}

const answers = []
for (const file of JSON.parse(files)) answers.push(await encode(file))
process.stdout.write(JSON.stringify(answers))
