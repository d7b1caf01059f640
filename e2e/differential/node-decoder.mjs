// What Node's own parsers make of a line `{"layer": "socket" | "engine" | "payload", "text": "…"}`.
//
// Imported by the differential test; started by itself it answers lines from the standard input.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { decodePacket, decodePayload } from "engine.io-parser";
import { Decoder } from "socket.io-parser";

export function decode({ layer, text }) {
  if (layer === "socket") {
    return decodeSocket(text);
  }
  const packets = layer === "engine" ? [decodePacket(text, "nodebuffer")] : decodePayload(text, "nodebuffer");
  if (layer === "engine" && packets[0].type === "error") {
    return { ok: false, error: "parser error" };
  }
  return { ok: true, packets: packets.map(enginePacket) };
}

function enginePacket({ type, data }) {
  if (Buffer.isBuffer(data)) {
    return { type: "binary", data: data.toString("base64") };
  }
  return { type, data: data ?? "" };
}

// Binary packets get as many attachments as they announce, each holding its own number.
function decodeSocket(text) {
  const decoder = new Decoder();
  let packet;
  let attachments = 0;
  decoder.on("decoded", (decoded) => {
    packet = decoded;
  });
  try {
    decoder.add(text);
    while (packet === undefined) {
      decoder.add(Buffer.from([attachments]));
      attachments += 1;
    }
  } catch (error) {
    return { ok: false, error: error.message };
  }
  return {
    ok: true,
    kind: attachments > 0 ? packet.type + 3 : packet.type,
    attachments,
    namespace: packet.nsp,
    id: packet.id ?? null,
    data: packet.data === undefined ? null : withNumbers(packet.data),
  };
}

// Attachments become `{"$attachment": n}`, which both decoders can be compared by.
function withNumbers(value) {
  if (Buffer.isBuffer(value)) {
    return { $attachment: value[0] };
  }
  if (Array.isArray(value)) {
    return value.map(withNumbers);
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withNumbers(inner)]));
  }
  return value;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(decode(JSON.parse(line)))}\n`);
  }
}
