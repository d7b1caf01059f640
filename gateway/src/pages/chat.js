// The demo chat: a stock socket.io-client against the rules in gateway/demo.toml. Nothing here is private to Carillon,
// so the page also shows what any Socket.IO application needs from a server.
(() => {
  "use strict";

  const EVERYONE = "everyone";
  const LINES_MAX = 500;      // A page left open for a week must not grow for a week.
  const PEERS_MAX = 500;
  const ACK_TIMEOUT_MS = 5000;
  const $ = (id) => document.getElementById(id);

  if (typeof io === "undefined") {
    $("notice").textContent = "The Socket.IO client is not part of this build. Run “make client”, then build again.";
    $("notice").hidden = false;
    setStatus("down", "no client");
    return;
  }

  // --- Who we are -----------------------------------------------------------------------------------------------------

  const nameInput = $("name");
  nameInput.value = storedName() ?? `Guest ${100 + Math.floor(Math.random() * 900)}`;

  function storedName() {
    // Storage can be switched off in a browser; then the name lives as long as the page.
    try { return localStorage.getItem("carillon.name"); } catch { return null; }
  }

  function myName() {
    return nameInput.value.trim() || "Anonymous";
  }

  nameInput.addEventListener("input", () => {
    try { localStorage.setItem("carillon.name", nameInput.value); } catch { /* see storedName */ }
  });
  nameInput.addEventListener("keydown", (event) => {
    if (event.key === "Enter") nameInput.blur();
  });
  nameInput.addEventListener("change", () => {
    drawPeers();
    for (const id of peers.keys()) socket.emit("present", { id, name: myName() });
  });

  // --- Conversations: everyone, rooms, single sockets -------------------------------------------------------------------

  const conversations = new Map();
  let conversationsMade = 0;
  let current = null;

  function conversation(key, kind, target, label) {
    const known = conversations.get(key);
    if (known) return known;
    const n = ++conversationsMade;
    const tab = element("button", { className: "tab", type: "button", id: `tab-${n}` });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", `log-${n}`);
    const log = element("div", { className: "log", id: `log-${n}`, tabIndex: 0, hidden: true });
    log.setAttribute("role", "log");
    log.setAttribute("aria-labelledby", tab.id);
    const made = { key, kind, target, label, tab, log, unread: 0 };
    tab.addEventListener("click", () => show(made));
    conversations.set(key, made);
    $("tabs").append(tab);
    $("messages").append(log);
    drawTab(made);
    return made;
  }

  const everyone = conversation(EVERYONE, EVERYONE, null, "Everyone");
  const roomConversation = (room) => conversation(`room:${room}`, "room", room, `#${room}`);
  const directConversation = (id) => conversation(`direct:${id}`, "direct", id, `@${nameOf(id)}`);

  function drawTab(made) {
    made.tab.replaceChildren(made.label);
    if (made.unread > 0) {
      const badge = element("span", { className: "badge", textContent: String(made.unread) });
      badge.append(element("span", { className: "unseen", textContent: " unread" }));
      made.tab.append(badge);
    }
    made.tab.setAttribute("aria-selected", String(made === current));
    made.tab.tabIndex = made === current ? 0 : -1;
  }

  function show(made) {
    const before = current;
    current = made;
    if (before && conversations.has(before.key)) {
      before.log.hidden = true;
      drawTab(before);
    }
    made.unread = 0;
    made.log.hidden = false;
    made.log.scrollTop = made.log.scrollHeight;
    drawTab(made);
    made.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    const whom = made.kind === EVERYONE ? "everyone" : made.label;
    $("message-label").textContent = `Message to ${whom}`;
    $("message").placeholder = `Message ${whom}`;
    $("leave").hidden = made.kind === EVERYONE;
    $("leave").textContent = made.kind === "room" ? "Leave" : "Close";
    $("leave").setAttribute("aria-label", `${$("leave").textContent} ${made.label}`);
  }

  function remove(made) {
    conversations.delete(made.key);
    made.tab.remove();
    made.log.remove();
    if (current === made) {
      show(everyone);
      $("message").focus();
    }
  }

  $("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.target.getAttribute("role") !== "tab") return;
    const all = [...conversations.values()];
    const next = all[(all.indexOf(current) + step + all.length) % all.length];
    show(next);
    next.tab.focus();
    event.preventDefault();
  });

  // --- Lines in a conversation --------------------------------------------------------------------------------------------

  function append(made, node) {
    const log = made.log;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    log.append(node);
    while (log.childElementCount > LINES_MAX) log.firstElementChild.remove();
    if (made === current) {
      if (atEnd) log.scrollTop = log.scrollHeight;
      return;
    }
    if (!node.classList.contains("message")) return;
    made.unread += 1;
    drawTab(made);
  }

  function line(made, text, bad) {
    append(made, element("p", { className: bad ? "line bad" : "line", textContent: text }));
  }

  function message(made, from, name, text) {
    const mine = from !== undefined && from === socket.id;
    const author = from ?? name;
    const box = element("div", { className: mine ? "message mine" : "message" });
    box.dataset.author = author;
    const last = made.log.lastElementChild;
    if (last?.dataset.author === author && last.dataset.name === name) box.classList.add("same");
    box.dataset.name = name;
    const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const meta = element("p", { className: "meta" }, element("b", { textContent: mine ? "You" : name }), ` ${time}`);
    box.append(avatar(name), meta, element("p", { className: "text", textContent: text }));
    append(made, box);
  }

  function avatar(name) {
    const letters = name.split(/\s+/).filter(Boolean).slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
    const made = element("span", { className: "avatar", textContent: letters || "?" });
    made.setAttribute("aria-hidden", "true");
    // The name, not the id, picks the colour: an id lasts as long as its connection.
    let hash = 7;
    for (const character of name) hash = (hash * 33 + character.codePointAt(0)) % 100003;
    made.style.setProperty("--hue", String((hash * 47) % 360));
    return made;
  }

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // --- People -----------------------------------------------------------------------------------------------------------

  const peers = new Map();

  function nameOf(id) {
    return peers.get(id) ?? `${String(id).slice(0, 6)}…`;
  }

  function meet(id, name) {
    if (typeof id !== "string" || id === socket.id) return;
    const text = asName(name);
    if (peers.get(id) === text || (!peers.has(id) && peers.size >= PEERS_MAX)) return;
    peers.set(id, text);
    const direct = conversations.get(`direct:${id}`);
    if (direct) {
      direct.label = `@${text}`;
      drawTab(direct);
    }
    drawPeers();
  }

  function asName(value) {
    return typeof value === "string" && value.trim() !== "" ? value.trim().slice(0, 40) : "Anonymous";
  }

  function drawPeers() {
    const rows = [...peers].sort((a, b) => a[1].localeCompare(b[1]));
    $("peers").replaceChildren(...rows.map(([id, name]) => {
      const button = element("button", { className: "peer", type: "button" },
        avatar(name),
        element("span", { className: "who" }, element("span", { className: "unseen", textContent: "Message " }), name),
        element("code", { textContent: id }));
      button.dataset.id = id;
      button.addEventListener("click", () => {
        toggleSide(false);
        show(directConversation(id));
        $("message").focus();
      });
      return element("li", {}, button);
    }));
    $("nobody").hidden = peers.size > 0;
    $("peer-count").textContent = $("peer-count-phone").textContent = String(peers.size);
  }

  function toggleSide(open) {
    $("side").classList.toggle("open", open);
    $("toggle").setAttribute("aria-expanded", String(open));
  }
  $("toggle").addEventListener("click", () => toggleSide(!$("side").classList.contains("open")));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && $("side").classList.contains("open")) {
      toggleSide(false);
      $("toggle").focus();
    }
  });

  // --- The connection ---------------------------------------------------------------------------------------------------

  // “/?transport=polling” and “/?transport=websocket” pin one transport, to see the difference.
  const pinned = new URLSearchParams(location.search).get("transport");
  const transports = ["polling", "websocket"].includes(pinned) ? [pinned] : ["polling", "websocket"];
  const socket = io({ transports, auth: (answer) => answer({ name: myName() }) });

  function setStatus(state, text) {
    const status = $("status");
    status.dataset.state = state;
    if (status.textContent !== text) status.textContent = text;
    $("send").disabled = state !== "up";
  }

  function setId(id) {
    $("socket-id").textContent = id ?? "none";
    $("copy").hidden = id === undefined;
    $("nobody").textContent = id === undefined
      ? "Not connected."
      : "Nobody else yet. Open this page in a second tab or on another node.";
  }

  function setTransport(name, hint) {
    const pill = $("transport");
    pill.classList.toggle("changed", hint !== "");
    pill.textContent = name;
    $("upgrade").textContent = hint;
  }

  socket.io.on("open", () => {
    const engine = socket.io.engine;
    const opened = performance.now();
    setTransport(engine.transport.name, "");
    engine.on("upgrade", (transport) => {
      setTransport(transport.name, `upgraded in ${Math.round(performance.now() - opened)} ms`);
    });
  });
  socket.io.on("reconnect_attempt", () => setStatus("waiting", "reconnecting…"));

  let connectedBefore = false;
  socket.on("connect", () => {
    setStatus("up", "connected");
    $("connect").hidden = true;
    setId(socket.id);
    if (connectedBefore) line(everyone, "Connected again. Messages sent meanwhile were missed.");
    connectedBefore = true;
    for (const made of conversations.values()) {
      if (made.kind === "room") request("join room", made.target, made, () => line(made, "Joined again."));
    }
  });

  socket.on("disconnect", (reason) => {
    setId(undefined);
    setTransport("none", "");
    peers.clear();
    drawPeers();
    // The client reconnects by itself (socket.active) unless one side ended the socket on purpose.
    setStatus(socket.active ? "waiting" : "down", socket.active ? "reconnecting…" : "disconnected");
    $("connect").hidden = socket.active;
    line(everyone, `Connection lost (${reason}).`);
  });

  socket.on("connect_error", (error) => {
    if (socket.active) {
      setStatus("waiting", connectedBefore ? "reconnecting…" : "connecting…");
      return;
    }
    setStatus("down", "refused");
    $("connect").hidden = false;
    line(everyone, `The server refused the connection: ${error.message}`, true);
  });

  $("connect").addEventListener("click", () => {
    setStatus("waiting", "connecting…");
    socket.connect();
  });

  // --- What the server sends --------------------------------------------------------------------------------------------

  socket.on("welcome", (id) => line(everyone, `You are ${id}.`));

  socket.on("joined", (id, name) => {
    if (id === socket.id) return;
    meet(id, name);
    line(everyone, `${asName(name)} joined.`);
    // Rules keep no list of members, so those who are here introduce themselves to the newcomer.
    socket.emit("present", { id, name: myName() });
  });

  socket.on("present", (id, name) => meet(id, name));

  socket.on("left", (id) => {
    if (!peers.has(id)) return;
    const name = nameOf(id);
    peers.delete(id);
    drawPeers();
    line(everyone, `${name} left.`);
    const direct = conversations.get(`direct:${id}`);
    if (direct) line(direct, `${name} left. A new connection will have a new id.`);
  });

  socket.on("chat message", (text, sender) => receive(everyone, text, sender));

  socket.on("room message", (data) => {
    if (typeof data?.room === "string") receive(roomConversation(data.room), data.text, data);
  });

  socket.on("direct", (data) => {
    if (typeof data?.from !== "string") return;
    meet(data.from, data.name);
    receive(directConversation(data.from), data.text, data);
  });

  function receive(made, text, sender) {
    if (typeof text !== "string") return;
    const from = typeof sender?.from === "string" ? sender.from : undefined;
    if (from) meet(from, sender.name);
    message(made, from, asName(sender?.name), text);
  }

  // --- What the person does ---------------------------------------------------------------------------------------------

  /** Emits with an ack; a refusal or a timeout becomes a line in the conversation. */
  function request(event, argument, made, done) {
    socket.timeout(ACK_TIMEOUT_MS).emit(event, argument, (failure, reply) => {
      const refusal = failure ? "no answer in time" : reply?.error?.message;
      if (refusal) line(made, `Not done: ${refusal}.`, true);
      else done();
    });
  }

  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("message").value.trim();
    const made = current;
    if (text === "" || !socket.connected) return;
    $("message").value = "";
    const name = myName();
    if (made.kind === EVERYONE) {
      socket.emit("chat message", text, { name });
    } else if (made.kind === "room") {
      request("room message", { room: made.target, text, name }, made, () => {});
    } else {
      request("direct", { id: made.target, text, name }, made, () => message(made, socket.id, name, text));
    }
  });

  $("room-form").addEventListener("submit", (event) => {
    event.preventDefault();
    // Rooms are shown with a “#”, so people type one; it is not part of the name.
    const room = $("room").value.trim().replace(/^#+/, "") || $("room").placeholder;
    if (!socket.connected) return;
    $("room").value = "";
    toggleSide(false);
    const known = conversations.get(`room:${room}`);
    if (known) {
      show(known);
      return;
    }
    const made = roomConversation(room);
    show(made);
    $("message").focus();
    request("join room", room, made, () => line(made, `You joined #${room}.`));
  });

  $("add").addEventListener("click", () => {
    toggleSide(true);
    $("room").focus();
  });

  $("leave").addEventListener("click", () => {
    if (current.kind === "room" && socket.connected) socket.emit("leave room", current.target, () => {});
    remove(current);
  });

  $("copy").addEventListener("click", async () => {
    if (!socket.id || !navigator.clipboard) return;
    await navigator.clipboard.writeText(socket.id);
    $("copy").textContent = "copied";
    setTimeout(() => { $("copy").textContent = "copy"; }, 1500);
  });

  setId(undefined);
  show(everyone);
  drawPeers();
  $("message").focus();
})();
