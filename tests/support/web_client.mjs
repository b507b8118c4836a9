// A web page's calls by gRPC-Web; in node as well, whose fetch is the nearest thing to a browser's.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    const told = ConnectError.from(error);
    const details = told.details.map((detail) => detail.type).sort();
    return { code: Code[told.code], message: told.rawMessage, details };
  }
  return null;
}

async function all(stream, seen = []) {
  for await (const answer of stream) seen.push(answer.text);
  return seen;
}

export async function converse(baseUrl, descriptors) {
  const bytes = Uint8Array.from(atob(descriptors), (character) => character.charCodeAt(0));
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
  const service = registry.getService("tests.echo.v1.EchoService");
  const client = createClient(service, createGrpcWebTransport({ baseUrl }));
  const fail = (error, more = {}) => ({ behaviour: "fail", failure: { error, message: "ü 1\n2" }, ...more });
  const report = { before: [] };

  report.said = (await client.say({ text: "hello" })).text;
  report.counted = await all(client.count({ text: "a", times: 100 }));
  const large = await client.say({ payload: new Uint8Array(1_000_000).fill(7) });
  report.large = large.payload.length;
  const headers = { "x-request-id": "web-1" };
  report.seen = (await client.say({ behaviour: "look" }, { headers, timeoutMs: 5000 })).seen;
  report.refused = await failure(client.say(fail("OverloadedError")));
  report.invalid = await failure(client.say({ text: "too long a text" }));
  report.unknown = await failure(client.say(fail("ValueError")));
  report.unimplemented = await failure(client.forget({}));
  const broken = client.count(fail("OverloadedError", { text: "a", times: 2 }));
  report.broken = await failure(all(broken, report.before));
  report.late = await failure(client.say({ behaviour: "wait" }, { timeoutMs: 200 }));
  return report;
}
