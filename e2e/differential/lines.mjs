// The lines of the differential test: a corpus of right and wrong texts, and seeded mixtures of their pieces.

const corpus = {
  socket: [
    ...['["a\\"b",1]', '["\\u00e9",1]', '["a\\nb",1]', "[1,2]", "[1.0]", "[1e3,1e-7]", "[-0]", "[123456789012345678901]"],
    ...["[1e21]", "[0.1]", "[1.5e-9]", '["a",1]xyz', '["a",1],"evil"]', "[]", '{"a":1}', "[null]", '[{"toString":"x"}]'],
    ...["", "123", '["disconnect",1]', '["connect"]', '["connect_error"]', '["disconnecting"]', '["newListener"]'],
    ...['["removeListener"]', '["\\u0063onnect"]', `["a",${"[".repeat(63)}${"]".repeat(63)}]`],
    ...[`["a",${"[".repeat(64)}${"]".repeat(64)}]`, '99999999999999999999["a",1]', '9007199254740991["a"]'],
    ...['/nope,["a"]', '/a b,7["a"]', "/nope", '/,["a"]', '["a","\\ud800"]', '["\\ud800"]', '["a","\\x"]', '["a",NaN]'],
    ...['["a",1e999]', '["a",-1e400]', '["a","1e999"]', ' ["a"]', '\n["a"]', '1 ["a"]', '["a"] ', '["a",{"a":1,"a":2}]'],
    ...['["a",{"__proto__":1}]', '["a",01]', '["a",1.]', '["a",.5]', '["a",+1]', '["a",1e]', '["a","\u0001"]', '["a",]'],
    ...['/a\u0001b,["a"]', '["a","\u007f\u2028😀"]', '["a",{"_placeholder":true,"num":0}]', '["a",tru]', '["a"'],
  ].map((data) => `2${data}`),
  other: [
    ...["0", "0{}", '0{"token":"x"}', "0[]", '0"x"', "0null", "0{", "0/ns,", "0/ns?x=1,", "0//,", "0/a#b,", "0/*,{}", "05{}"],
    ...["1", '1["x"]', "1/ns,", "15", '4{"message":"x"}', '4"x"', "4[]", "4", "3[]", "31[]", "3999[1,2]", "31{}", "31"],
    ...["399999999999999999999[]", "7", '9["a"]', "", " ", "\u00002", '\ufeff2["a"]', "2", '5-1-["a"]', '50-["a"]'],
    ...['510001-["a"]', '511-["a"]', '510-["a"]', '51.5-["a"]', '51["a"]', '5x-["a"]', '501-["a"]', '51e0-["a"]', '5 1-["a"]'],
    ...['50x1-["a"]', '59999-["a"]', "51-", "61-", "61-3[]", '61-["a"]'],
    ...['51-["a",{"_placeholder":true,"num":0}]', '51-["a",{"_placeholder":true,"num":99}]'],
    ...['51-["a",{"_placeholder":true,"num":-1}]', '51-["a",{"_placeholder":true,"num":"0"}]'],
    ...['51-["a",{"_placeholder":true,"num":"splice"}]', '51-["a",{"_placeholder":true,"num":0.5}]'],
    ...['51-["a",{"_placeholder":true,"num":0.0}]', '51-["a",{"_placeholder":true}]', '51-["a",{"_placeholder":1,"num":9}]'],
    ...['52-/admin,5["a",{"_placeholder":true,"num":1},[{"_placeholder":true,"num":0}]]'],
    ...['51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]', '51-["a",{"\\u005fplaceholder":true,"num":9}]'],
    ...['51-["a",{"_placeholder":true,"num":9,"num":0}]', '51-["a",{"_placeholder":true,"num":0,"x":{"_placeholder":true}}]'],
    ...['61-7[{"num":0,"_placeholder":true,"x":1}]', '51-["connect",{"_placeholder":true,"num":0}]'],
  ],
  engine: ["", "0", "0{}", "1", "1x", "2", "2probe", "3", "3x", "4", '42["a"]', "5", "5x", "6", "6x", "7", "zzz", "é", "éabcd", "bAQID", "b!!!!", "b", "4\u001e", "\ufeff4"],
  payload: ["", "4a", "4a\u001e4b", "\u001e", "4a\u001e", "\u001e4a", "bAQID", "b", "bAQ==", "bAQ", "b!!!", "b_-8", "bA", "4a\u001ebAQID\u001e1", "1x\u001e4a", "zzz\u001e4a", "4\u001e5\u001e6\u001e2\u001e3probe"],
};

const pieces = {
  socket: ["0", "1", "2", "3", "4", "5", "6", "51-", "52-", "-", "/", "/ns,", ",", "7", "12", "[", "]", "{", "}", '"a"', '"b\\u0041"', ":", "1.5", "-1", "1e5", "1e999", "null", "true", " ", "\\", '"', '["a"]', '["a",1]', '{"_placeholder":true,"num":0}', '{"_placeholder":true,"num":1}', '{"num":0}', "é", "\u0000", "\u001e"],
  engine: ["0", "1", "2", "3", "4", "5", "6", "b", "AQID", "=", "probe", "é", " ", "\u001e", "{}"],
  payload: ["\u001e", "\u001e", "4a", "1", "2probe", "3", "6", "bAQID", "bAQ==", "b", "=", "x", "é"],
};

// A generator of which a failure can be repeated by its seed (the algorithm is mulberry32).
function generator(seed) {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

// Splits by code point, so that no change leaves half of a surrogate pair, which UTF-8 could not carry.
function mutate(text, random, kinds) {
  const characters = Array.from(text);
  const at = random(characters.length + 1);
  const piece = kinds[random(kinds.length)];
  const changes = [
    () => characters.splice(at, 1),
    () => characters.splice(at, 0, piece),
    () => characters.splice(at, 1, piece),
    () => characters.splice(at),
  ];
  changes[random(changes.length)]();
  return characters.join("");
}

export function lines(seed, count) {
  const random = generator(seed);
  const whole = { socket: [...corpus.socket, ...corpus.other], engine: corpus.engine, payload: corpus.payload };
  const result = Object.entries(whole).flatMap(([layer, texts]) => texts.map((text) => ({ layer, text })));
  const layers = ["socket", "socket", "socket", "socket", "engine", "payload"];
  while (result.length < count) {
    const layer = layers[random(layers.length)];
    const kinds = pieces[layer];
    let text = "";
    if (random(3) > 0) {
      text = whole[layer][random(whole[layer].length)];
      for (let changes = random(3) + 1; changes > 0; changes -= 1) {
        text = mutate(text, random, kinds);
      }
    } else {
      for (let length = random(8); length >= 0; length -= 1) {
        text += kinds[random(kinds.length)];
      }
    }
    result.push({ layer, text });
  }
  return result;
}
