// Arguments that must arrive as they were sent, on every way through a cluster.

const HUNDRED_KILOBYTES = 100 * 1024;

function pattern(length) {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1) {
    bytes[at] = (at * 31 + (at >> 8)) & 0xff;
  }
  return bytes;
}

export const PAYLOADS = {
  'a text': ['hello'],
  'an empty text': [''],
  'no argument': [],
  'several arguments': ['one', 2, { three: [3] }, null],
  unicode: ['grüße 漢字 🎉 \u{10ffff} \u2028 \u0000 "quoted" \\ \u001e', { 'schlüssel 🔑': 'ß' }],
  integers: [0, 1, -1, 127, 128, 255, 256, 65535, 65536, -32, -33, -128, -129, -32769],
  'large integers': [2 ** 31, 2 ** 32, -(2 ** 31) - 1, 1700000000000, 2 ** 53 - 1, -(2 ** 53) + 1],
  // Integral numbers from 2^64 are left out: Node's adapter corrupts them for other servers.
  fractions: [1.5, -0.1, 1e-7, 123456789.125, 5e-324, -2.2250738585072014e-308],
  'null, true and false': [null, true, false],
  'nested objects and arrays': [{ a: { b: [{ c: [[], {}, [null]] }] }, list: [1, [2, [3]]] }],
  'object keys in their order': [{ z: 1, a: 2, m: { y: 1, b: 2 } }],
  'something that looks like a placeholder': [{ num: 0, placeholder: true }],
  'a binary': [Buffer.from([0, 1, 2, 253, 254, 255])],
  'an empty binary': [Buffer.alloc(0)],
  'a nested binary': [{ file: { name: 'x', parts: [Buffer.from('part')] } }, 'and text'],
  'several binaries': [Buffer.from('a'), { b: Buffer.from('bb') }, [Buffer.from('ccc')], 4],
  'a text of over 100 KB': ['ü'.repeat(HUNDRED_KILOBYTES)],
  'a binary of over 100 KB': [pattern(HUNDRED_KILOBYTES + 7)],
};

/** Binary arrives as whatever the client uses for it: compare the bytes. */
export function normal(value) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    return Buffer.from(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength);
  }
  if (Array.isArray(value)) {
    return value.map(normal);
  }
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, normal(inner)]));
  }
  return value;
}
