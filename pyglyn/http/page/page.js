// The page of a pyglyn node: reads /api/stream, draws what is so, and says what is wrong.
const $ = (id) => document.getElementById(id);
const state = { nodes: [], deaths: [], chosen: null, mayChange: false, folded: new Set(), focus: null, before: new Map(), cpu: new Map(), counts: new Map() };
let token = location.hash.slice(1) || sessionStorage.getItem("token") || "";

function element(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function say(text, bad = false) {
  const link = $("link");
  if (link.textContent !== text) link.textContent = text;
  link.className = bad ? "bad" : "";
}

// --- the stream ---------------------------------------------------------------------------------

const headers = () => ({ Authorization: `Bearer ${token}` });
let wrongToken = false;

async function follow() {
  for (;;) {
    try {
      const response = await fetch("api/stream", { headers: headers() });
      if (response.status === 401) return askForToken(token !== "");
      if (!response.ok) throw new Error(`status ${response.status}`);
      $("login").hidden = true;
      sessionStorage.setItem("token", token);
      say("live");
      await read(response.body.getReader());
      say("the server has closed the connection; trying again", true);
    } catch (error) {
      say("no connection to the server; trying again", true);
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name) => lines.filter((l) => l.startsWith(name)).map((l) => l.slice(name.length + 1).trimStart()).join("\n");
      take(field("event"), JSON.parse(field("data")));
    }
  }
}

function askForToken(wrong) {
  wrongToken = wrong;
  say(wrong ? "wrong token" : "a token is needed: it was printed when the server started", wrong);
  $("login").hidden = false;
  $("token").focus();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  follow();
});
window.addEventListener("hashchange", () => {
  if (location.hash.length > 20) { token = location.hash.slice(1); if (!$("login").hidden) follow(); }
});

function take(event, data) {
  if (event === "deaths") {
    const key = (death) => `${death.at} ${death.node} ${death.pid}`;
    const known = new Set(state.deaths.map(key)); // a new connection begins with all of them
    state.deaths = [...data.reverse().filter((death) => !known.has(key(death))), ...state.deaths].slice(0, 200);
    drawDeaths();
  } else if (event === "nodes") {
    for (const node of data.nodes) measure(node, data.at);
    const known = new Map(state.nodes.map((node) => [node.name, node]));
    state.nodes = data.nodes.map((node) => (node.state === "up" ? node : { ...known.get(node.name), ...node }));
    state.mayChange = data.may_change;
    drawEvents(data.stores);
    state.chosen ??= state.nodes[0]?.name;
    draw();
  }
}

// CPU and rates between two looks.
function measure(node, at) {
  const last = state.counts.get(node.name);
  node.rates = {};
  for (const [what, count] of Object.entries(node.counts ?? {})) {
    node.rates[what] = last && at > last.at && what in last.counts ? Math.max(0, (count - last.counts[what]) / (at - last.at)) : null;
  }
  if (node.counts) state.counts.set(node.name, { counts: node.counts, at });
  for (const process of node.processes ?? []) {
    if (process.cpu_us === null) continue;
    const key = `${node.name} ${process.os_pid}`;
    const past = state.cpu.get(key);
    process.cpu = past && at > past.at ? Math.max(0, (process.cpu_us - past.us) / 1e6 / (at - past.at)) : null;
    state.cpu.set(key, { us: process.cpu_us, at });
  }
}

// --- drawing ------------------------------------------------------------------------------------

const chosen = () => state.nodes.find((node) => node.name === state.chosen);
const bytes = (n) => (n === null || n === undefined ? "" : `${(n / 2 ** 20).toFixed(1)} MiB`);
function span(ms) {
  if (ms === null || ms === undefined) return "";
  const s = ms / 1000;
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (s >= 2 * unit) return `${Math.round(s / unit)} ${name}`;
  return `${Math.round(s)} s`;
}

function draw() {
  drawNodes();
  drawMap();
  const node = chosen();
  drawRates(node);
  drawTree(node);
  drawQueries(node);
  drawGroups(node);
}

// Replaces what an element holds if that has changed; keeps the focus on the same thing.
function fill(parent, ...children) {
  const active = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  parent.replaceChildren(...children);
  if (active) parent.querySelector(`[data-key="${CSS.escape(active)}"]`)?.focus();
}

function drawNodes() {
  fill($("nodes"), ...state.nodes.map((node) => element(
    "button",
    { type: "button", "data-key": node.name, "aria-pressed": String(node.name === state.chosen), onclick: () => { state.chosen = node.name; state.before.clear(); draw(); } },
    node.name,
    element("small", { class: node.state === "up" ? "" : "bad" }, node.state === "up" ? `${node.version} · ${bytes(node.memory)}` : `${node.state}: ${node.error}`),
  )));
}

function drawRates(node) {
  const shown = (what) => (node?.rates?.[what] === null || node?.rates?.[what] === undefined ? "-" : node.rates[what].toFixed(1));
  const parts = ["commands", "events"].map((what) => `${shown(what)} ${what} a second (${node?.counts?.[what] ?? 0} so far)`);
  fill($("rates"), element("p", {}, `${parts.join(", ")}, ${node?.counts?.restarts ?? 0} restarts`));
}

function drawMap() {
  const names = new Map();
  const links = new Map();
  for (const node of state.nodes) names.set(node.name, node.state === "up" ? "" : "bad");
  for (const node of state.nodes) {
    if (node.state !== "up") continue;
    for (const peer of node.connected ?? []) {
      if (!names.has(peer.name)) names.set(peer.name, "peer");
      links.set([node.name, peer.name].sort().join(" "), [node.name, peer.name, peer.hidden]);
    }
  }
  const all = [...names.keys()];
  const at = new Map(all.map((name, i) => {
    const angle = (2 * Math.PI * i) / all.length - Math.PI / 2;
    return [name, all.length === 1 ? [200, 70] : [200 + 110 * Math.cos(angle), 80 + 55 * Math.sin(angle)]];
  }));
  fill($("map"), element(
    "svg:svg", { viewBox: "0 0 400 160", role: "img", "aria-label": all.length ? `Nodes: ${all.join(", ")}` : "No nodes" },
    ...[...links.values()].map(([a, b, hidden]) => element("svg:line", { x1: at.get(a)[0], y1: at.get(a)[1], x2: at.get(b)[0], y2: at.get(b)[1], class: hidden ? "hidden" : "" })),
    ...all.map((name) => element("svg:circle", { cx: at.get(name)[0], cy: at.get(name)[1], r: 7, class: names.get(name) })),
    ...all.map((name) => element("svg:text", { x: at.get(name)[0], y: at.get(name)[1] + 20, "text-anchor": "middle" }, name)),
  ));
}

function drawTree(node) {
  const processes = node?.processes ?? [];
  const pids = new Set(processes.map((process) => process.pid).filter(Boolean));
  const below = new Map();
  for (const process of processes) {
    const parent = pids.has(process.parent) && process.parent !== process.pid ? process.parent : "";
    below.set(parent, [...(below.get(parent) ?? []), process]);
  }
  const seen = new Map();
  const item = (process, level) => {
    const key = `${process.parent} ${process.name} ${process.pid ? "" : process.status}`;
    const mark = `${process.pid} ${process.status} ${process.restarts}`;
    const changed = state.before.size > 0 && state.before.get(key) !== mark;
    seen.set(key, mark);
    const children = process.pid ? below.get(process.pid) ?? [] : [];
    const facts = [
      process.pid, process.os_pid && process.memory !== null ? `OS ${process.os_pid}` : null, process.status,
      process.restarts ? `${process.restarts} restarts` : null,
      process.memory !== null ? bytes(process.memory) : null,
      process.cpu !== null && process.cpu !== undefined ? `${(100 * process.cpu).toFixed(1)} %` : null,
      span(process.uptime_ms) || null,
    ].filter(Boolean).join(" · ");
    return element(
      "li",
      {
        role: "treeitem", "aria-level": level, "data-key": key, tabindex: "-1",
        "aria-expanded": children.length ? String(!state.folded.has(key)) : null,
      },
      element("div", { class: `row ${process.status}${changed ? " changed" : ""}` },
        element("span", { class: "name" }, process.name || process.label || "process"),
        element("span", { class: "facts" }, facts),
        process.mailbox ? element("span", { class: process.mailbox > 1000 ? "facts warn" : "facts" }, `${process.mailbox} messages wait`) : null),
      children.length ? element("ul", { role: "group" }, ...children.map((child) => item(child, level + 1))) : null,
    );
  };
  const tops = (below.get("") ?? []).sort((a, b) => Number(below.has(b.pid)) - Number(below.has(a.pid)));
  const tree = tops.length
    ? element("ul", { role: "tree", "aria-label": `Processes of ${node.name}` }, ...tops.map((process) => item(process, 1)))
    : element("p", { class: "none" }, node?.kind === "beam" ? "A BEAM node: its tools show it." : "Nothing known yet.");
  fill($("tree"), tree);
  const focused = tree.querySelector?.(`[data-key="${CSS.escape(state.focus ?? "")}"]`) ?? tree.querySelector?.('[role="treeitem"]');
  focused?.setAttribute("tabindex", "0");
  state.before = seen;
}

$("tree").addEventListener("focusin", (event) => {
  const item = event.target.closest('[role="treeitem"]');
  if (!item) return;
  for (const other of $("tree").querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  item.setAttribute("tabindex", "0");
  state.focus = item.dataset.key;
});
$("tree").addEventListener("click", (event) => event.target.closest('[role="treeitem"]')?.focus());
$("tree").addEventListener("keydown", (event) => {
  const item = event.target.closest('[role="treeitem"]');
  if (!item) return;
  const shown = [...$("tree").querySelectorAll('[role="treeitem"]')].filter((each) => each.offsetParent !== null);
  const fold = (folded) => {
    if (item.getAttribute("aria-expanded") === null) return;
    item.setAttribute("aria-expanded", String(!folded));
    state.folded[folded ? "add" : "delete"](item.dataset.key);
  };
  const open = item.getAttribute("aria-expanded") === "true";
  const at = shown.indexOf(item);
  if (event.key === "ArrowDown") shown[at + 1]?.focus();
  else if (event.key === "ArrowUp") shown[at - 1]?.focus();
  else if (event.key === "Home") shown[0]?.focus();
  else if (event.key === "End") shown.at(-1)?.focus();
  else if (event.key === "ArrowRight") { if (open) shown[at + 1]?.focus(); else fold(false); }
  else if (event.key === "ArrowLeft") { if (open) fold(true); else item.parentElement.closest('[role="treeitem"]')?.focus(); }
  else return;
  event.preventDefault();
});

function drawDeaths() {
  fill($("deaths"), ...(state.deaths.length
    ? state.deaths.map((death) => element("li", {},
        element("time", { datetime: new Date(death.at * 1000).toISOString() }, new Date(death.at * 1000).toLocaleTimeString()), " ",
        element("strong", {}, death.name || death.pid), ` ${death.pid} on ${death.node} `, element("span", { class: "reason" }, death.reason)))
    : [element("li", { class: "none" }, "None since this page looks.")]));
}

async function order(node, query, what, id = null) {
  const response = await fetch("api/queries", {
    method: "POST", headers: { ...headers(), "Content-Type": "application/json" },
    body: JSON.stringify({ node: node.name, query, order: what, id }),
  });
  const answer = await response.json();
  say(response.ok ? "live" : `${query}: ${answer.error}`, !response.ok);
}

function drawQueries(node) {
  const button = (query, what, text, id = null) => state.mayChange
    ? element("button", { type: "button", "data-key": `${query} ${what} ${id}`, onclick: () => order(node, query, what, id) }, text) : null;
  const found = (node?.queries ?? []).map((query) => element("div", { class: "query", "data-query": query.name },
    element("strong", {}, query.name), ` ${query.kind}, ${query.state}; position ${query.position ?? "-"}, lag ${query.lag ?? "-"}, ${query.processed ?? "-"} processed, ${query.parked ?? "-"} parked `,
    query.position !== null && query.position !== undefined
      ? element("progress", { max: query.position + query.lag || 1, value: query.position + query.lag ? query.position : 1, "aria-label": `Progress of ${query.name}` }) : null,
    query.error ? element("pre", { class: "reason" }, query.error) : null,
    element("div", {}, query.state === "paused" ? button(query.name, "resume", "Resume") : button(query.name, "pause", "Pause"),
      query.kind === "durable" ? button(query.name, "replay", "Replay") : null, query.parked ? button(query.name, "drive", "Drive all") : null),
    ...(query.events ?? []).map((event) => element("details", {},
      element("summary", {}, `event ${event.sequence} of ${event.aggregate_id}, ${event.attempts} attempts `, button(query.name, "drive", "Drive", event.id)),
      element("pre", { class: "reason" }, event.error ?? ""), element("pre", {}, event.raw))),
  ));
  fill($("queries"), ...(found.length ? found : [element("p", { class: "none" }, "None.")]));
}

function drawEvents(stores) {
  const item = (event) => element("li", {}, element("strong", {}, event.name), ` ${event.id}${event.node ? ` on ${event.node}` : ""} `,
    event.at ? element("time", {}, new Date(event.at * 1000).toLocaleTimeString()) : null,
    event.caused.length ? element("ul", {}, ...event.caused.map(item)) : null);
  $("stores").hidden = stores.length === 0;
  fill($("events"), ...stores.flatMap((store) => [element("h3", {}, store.store),
    store.error ? element("p", { class: "reason" }, store.error) : element("ul", {}, ...store.trees.map(item))]));
}

function drawGroups(node) {
  const found = (node?.groups ?? []).flatMap((scope) => [
    element("h3", {}, `${scope.kind.replace("_", " ")} ${scope.scope}`),
    element("ul", {}, ...scope.groups.map((group) => element("li", {}, `${group.name}: `,
      group.members.map((member) => `${member.pid} on ${member.node}${member.meta ? ` (${member.meta})` : ""}`).join(", ") || "empty"))),
  ]);
  fill($("groups"), ...(found.length ? found : [element("p", { class: "none" }, "None.")]));
}

drawDeaths();
if (location.hash) history.replaceState(null, "", location.pathname);
if (token) follow(); else askForToken(false);
