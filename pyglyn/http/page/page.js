// The page of a pyglyn node: reads /api/stream, draws what is so, and says what is wrong.
const $ = (id) => document.getElementById(id);
const state = {
  nodes: [], groups: [], events: { sources: [], errors: [], trees: [] }, deaths: [], chosen: null, mayChange: false,
  folded: new Set(), focus: null, before: new Map(), cpu: new Map(), last: new Map(), history: new Map(),
};
const HISTORY = 60; // looks that are drawn
const SHOWN = 50; // members of a group that are shown
let token = location.hash.slice(1) || sessionStorage.getItem("token") || "";

// --- the stream ---------------------------------------------------------------------------------

const headers = () => ({ Authorization: `Bearer ${token}` });

function say(text, bad = false) {
  const link = $("link");
  if (link.textContent !== text) link.textContent = text;
  link.className = bad ? "bad" : "";
}

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
    const known = new Map(state.nodes.map((node) => [node.name, node]));
    for (const node of data.nodes) if (node.state === "up") measure(node, known.get(node.name), data.at);
    state.nodes = data.nodes.map((node) => (node.state === "up" ? node : { ...known.get(node.name), ...node }));
    state.mayChange = data.may_change;
    state.groups = data.groups;
    state.events = data.events;
    state.chosen ??= state.nodes[0]?.name;
    draw();
  }
}

// What has changed between two looks: CPU, rates, how fast queries go on; and what one look did not get.
function measure(node, before, at) {
  node.at = at;
  const last = state.last.get(node.name);
  const passed = last ? at - last.at : 0;
  const rate = (now, then) => (passed > 0 && then !== undefined && then !== null ? Math.max(0, (now - then) / passed) : null);
  node.rates = Object.fromEntries(Object.entries(node.counts).map(([what, count]) => [what, rate(count, last?.counts[what])]));
  let cpu = null;
  for (const process of node.processes) {
    if (process.cpu_us === null) continue;
    const key = `${node.name} ${process.os_pid}`;
    const used = rate(process.cpu_us, state.cpu.get(key));
    process.cpu = used === null ? null : used / 1e6;
    if (used !== null) cpu = (cpu ?? 0) + process.cpu;
    state.cpu.set(key, process.cpu_us);
  }
  node.cpu = cpu;
  const known = new Map((before?.queries ?? []).map((query) => [query.name, query]));
  node.queries = node.queries.map((query) => {
    const past = known.get(query.name);
    if (query.state === "no answer") return { ...past, ...query, kind: past?.kind ?? "-" };
    const speed = rate(query.position ?? 0, past?.position);
    return { ...query, left: speed && query.lag ? query.lag / speed : null };
  });
  state.last.set(node.name, { counts: node.counts, at });
  const history = state.history.get(node.name) ?? {};
  for (const [what, value] of [["commands", node.rates.commands], ["events", node.rates.events], ["cpu", cpu], ["memory", node.memory]]) {
    history[what] = [...(history[what] ?? []), value ?? 0].slice(-HISTORY);
  }
  state.history.set(node.name, history);
}

// --- making elements ----------------------------------------------------------------------------

function element(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Makes what an element holds like other children, and leaves alone what is so already: the focus, what is
// selected, scrolled or unfolded stays. A `data-key` says which child is which.
function fill(parent, ...children) {
  const wanted = children.flat().filter((child) => child !== null && child !== undefined);
  const keyed = new Map([...parent.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  const kept = new Set(wanted.map((child) => child.dataset?.key));
  for (const [key, child] of keyed) if (!kept.has(key)) child.remove(); // else others would be moved, and lose the focus
  let place = parent.firstChild;
  for (const child of wanted) {
    const node = typeof child === "string" ? document.createTextNode(child) : child;
    const known = node.dataset?.key ? keyed.get(node.dataset.key) : place?.dataset?.key ? null : place;
    if (known && known.nodeName === node.nodeName) {
      if (known === place) place = place.nextSibling;
      else parent.insertBefore(known, place);
      become(known, node);
    } else parent.insertBefore(node, place);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function become(known, wanted) {
  if (known.nodeType === Node.TEXT_NODE) {
    if (known.data !== wanted.data) known.data = wanted.data;
    return;
  }
  for (const { name, value } of [...wanted.attributes]) if (known.getAttribute(name) !== value) known.setAttribute(name, value);
  for (const { name } of [...known.attributes]) if (name !== "open" && !wanted.hasAttribute(name)) known.removeAttribute(name);
  fill(known, ...wanted.childNodes);
}

const bytes = (n) => {
  if (n === null || n === undefined) return "";
  return n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(2)} GiB` : `${(n / 2 ** 20).toFixed(1)} MiB`;
};
function span(ms) {
  if (ms === null || ms === undefined) return "";
  const s = ms / 1000;
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (s >= 2 * unit) return `${Math.round(s / unit)} ${name}`;
  return `${Math.round(s)} s`;
}
const percent = (share) => (share === null || share === undefined ? "" : `${(100 * share).toFixed(1)} %`);
const clock = (at) => element("time", { datetime: new Date(at * 1000).toISOString() }, new Date(at * 1000).toLocaleTimeString());
const none = (text) => element("p", { class: "none" }, text);

// --- drawing ------------------------------------------------------------------------------------

const chosen = () => state.nodes.find((node) => node.name === state.chosen);

function draw() {
  const node = chosen();
  drawNodes();
  drawMap();
  drawRates(node);
  drawTree(node);
  drawQueries(node);
  drawEvents();
  drawGroups();
}

// "pyglyn 0.1.0 [CPython 3.11.7] [64-bit] [smp:2:2] [os-processes:7]", "Erlang/OTP 25 [erts-13.1.5] …"
function about(node) {
  const text = node.version ?? "";
  const os = text.match(/\[os-processes:(\d+)\]/)?.[1];
  const parts = [text.split(" [")[0], text.match(/\[((?:CPython|PyPy|erts-)[^\]]*)\]/)?.[1]];
  return [...parts, os && `${os} OS process${os === "1" ? "" : "es"}`, bytes(node.memory)].filter(Boolean).join(" · ");
}

function drawNodes() {
  fill($("nodes"), state.nodes.map((node) => element(
    "button",
    { type: "button", "data-key": node.name, "data-node": node.name, "aria-pressed": String(node.name === state.chosen), class: node.state === "up" ? null : "bad" },
    element("strong", {}, node.name),
    element("small", {}, node.state === "up" ? about(node) : `${node.state}: ${node.error}`),
  )));
}

$("nodes").addEventListener("click", (event) => {
  const button = event.target.closest("[data-node]");
  if (!button) return;
  state.chosen = button.dataset.node;
  state.before.clear();
  draw();
});

function spark(values) {
  if (!values || values.length < 2) return null;
  const most = Math.max(...values) || 1;
  const path = values.map((value, i) => `${i ? "L" : "M"}${(100 * i) / (HISTORY - 1) + 100 - (100 * (values.length - 1)) / (HISTORY - 1)},${24 - (20 * value) / most}`).join("");
  return element("svg:svg", { viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true" }, element("svg:path", { d: path }));
}

function drawRates(node) {
  const history = state.history.get(node?.name) ?? {};
  const each = (label, value, more, values) => element("div", { class: "figure" },
    element("span", {}, label), element("strong", {}, value), more ? element("small", {}, ` ${more}`) : null, spark(values));
  const rate = (what) => (typeof node?.rates?.[what] === "number" ? node.rates[what].toFixed(1) : "–");
  const processes = node?.processes ?? [];
  const waiting = processes.reduce((sum, process) => sum + (process.mailbox ?? 0), 0);
  const alive = processes.filter((process) => process.pid).length;
  fill($("rates"), node?.kind !== "pyglyn" ? [] : [
    each("Processes", String(alive), ""),
    each("Memory", bytes(node.memory), "", history.memory),
    each("CPU", node.cpu === null || node.cpu === undefined ? "–" : percent(node.cpu), "of one", history.cpu),
    each("Messages that wait", String(waiting), ""),
    each("Restarts", String(node.counts?.restarts ?? 0), "so far"),
    each("Commands a second", rate("commands"), `${node.counts?.commands ?? 0} so far`, history.commands),
    each("Events a second", rate("events"), `${node.counts?.events ?? 0} so far`, history.events),
  ]);
}

function drawMap() {
  const names = new Map();
  const links = new Map();
  for (const node of state.nodes) names.set(node.name, node.state === "up" ? "" : "bad");
  for (const node of state.nodes) {
    if (node.state !== "up") continue;
    for (const peer of node.connected ?? []) {
      if (!names.has(peer.name)) names.set(peer.name, "peer");
      const key = [node.name, peer.name].sort().join(" ");
      links.set(key, [node.name, peer.name, peer.hidden || (links.get(key)?.[2] ?? false)]);
    }
  }
  const all = [...names.keys()];
  const [width, height] = [480, all.length > 1 ? 110 + 16 * Math.min(all.length, 10) : 70];
  const at = new Map(all.map((name, i) => {
    const angle = (2 * Math.PI * (i + 0.5)) / all.length + Math.PI / 2;
    const x = all.length === 1 ? 0 : Math.cos(angle);
    return [name, { x: width / 2 + 90 * x, y: height / 2 + (all.length === 1 ? -8 : (height / 2 - 26) * Math.sin(angle)), side: Math.abs(x) < 0.2 ? 0 : Math.sign(x) }];
  }));
  const heights = [...at.values()].map((place) => place.y);
  const [top, bottom] = all.length ? [Math.min(...heights) - 32, Math.max(...heights) + 34] : [0, 1];
  const short = (name) => (name.length > 24 ? `${name.slice(0, 23)}…` : name);
  fill($("map"), element(
    "svg:svg", { viewBox: `0 ${top} ${width} ${bottom - top}`, role: "img", "aria-label": all.length ? `Nodes: ${all.join(", ")}` : "No nodes" },
    [...links.values()].map(([a, b, hidden]) => element("svg:line", { x1: at.get(a).x, y1: at.get(a).y, x2: at.get(b).x, y2: at.get(b).y, class: hidden ? "hidden" : "" })),
    all.map((name) => element("svg:circle", { cx: at.get(name).x, cy: at.get(name).y, r: 7, class: `${names.get(name)} ${name === state.chosen ? "chosen" : ""}` })),
    all.map((name) => {
      const { x, y, side } = at.get(name);
      return element("svg:text", { x: x + 14 * side, y: y + (side ? 4 : y < height / 2 ? -14 : 24), "text-anchor": ["end", "middle", "start"][side + 1] },
        element("svg:title", {}, name), short(name));
    }),
  ));
}

const COLUMNS = ["name", "current function", "status", "restarts", "memory", "CPU", "waiting", "up for", "pid", "OS pid"];

function drawTree(node) {
  const processes = node?.processes ?? [];
  fill($("said"), node && node.state !== "up"
    ? element("p", {}, `${node.name} is ${node.state}: ${node.error}.${node.at ? " Below is what was so at " : ""}`, node.at ? clock(node.at) : null) : []);
  const pids = new Set(processes.map((process) => process.pid).filter(Boolean));
  const below = new Map();
  for (const process of processes) {
    const parent = pids.has(process.parent) && process.parent !== process.pid ? process.parent : "";
    below.set(parent, [...(below.get(parent) ?? []), process]);
  }
  const seen = new Map();
  const rows = [];
  const add = (process, level) => {
    const key = `${process.parent} ${process.name} ${process.restarts === null ? process.pid : ""}`;
    const mark = `${process.pid} ${process.status} ${process.restarts}`;
    const changed = state.before.size > 0 && state.before.get(key) !== mark;
    seen.set(key, mark);
    const children = process.pid ? below.get(process.pid) ?? [] : [];
    const folded = state.folded.has(key);
    const fact = (text, classes = "", label = null, unit = null) =>
      element("span", { class: `fact ${classes}`, "data-label": label, "data-unit": unit }, text === null || text === undefined ? "" : String(text));
    rows.push(element(
      "li",
      {
        role: "treeitem", "aria-level": level, "data-key": key, tabindex: "-1", style: null,
        "aria-expanded": children.length ? String(!folded) : null, class: `row ${process.status} ${changed ? "changed" : ""}`,
      },
      element("span", { class: "what" },
        element("span", { class: "fold", "aria-hidden": "true" }, children.length ? (folded ? "▸" : "▾") : ""),
        element("span", { class: "name" }, process.name || process.label || "process")),
      fact(process.current_function, "function"), fact(process.status, "status"),
      fact(process.restarts || "", process.restarts ? "warn" : "", null, process.restarts === 1 ? "restart" : "restarts"), fact(bytes(process.memory)), fact(percent(process.cpu), "", null, "CPU"),
      fact(process.mailbox || "", process.mailbox > 1000 ? "warn" : "", null, process.mailbox === 1 ? "message waits" : "messages wait"), fact(span(process.uptime_ms), "", "up"),
      fact(process.pid), fact(process.memory !== null && process.os_pid ? process.os_pid : "", "", "OS"),
      element("span", { class: "last" }, process.last_exit ? ["ended last: ", element("span", { class: "reason" }, process.last_exit)] : []),
    ));
    rows.at(-1).dataset.level = level;
    if (!folded) for (const child of children) add(child, level + 1);
  };
  const tops = (below.get("") ?? []).sort((a, b) => Number(below.has(b.pid)) - Number(below.has(a.pid)));
  for (const top of tops) add(top, 1);
  state.before = seen;
  const key = rows.some((row) => row.dataset.key === state.focus) ? state.focus : rows[0]?.dataset.key;
  for (const row of rows) if (row.dataset.key === key) row.setAttribute("tabindex", "0");
  fill($("tree"), rows.length
    ? [element("div", { class: "head", "aria-hidden": "true" }, COLUMNS.map((name) => element("span", {}, name))),
       element("ul", { role: "tree", "aria-label": `Processes of ${node.name}` }, rows)]
    : none(node?.kind === "beam" ? "A BEAM node: its own tools show its processes." : "Nothing known yet."));
  for (const row of $("tree").querySelectorAll(".row")) row.style.setProperty("--level", row.dataset.level); // no inline styles: the policy
}

const treeItem = (event) => event.target.closest('[role="treeitem"]');
function fold(item, folded) {
  if (item.getAttribute("aria-expanded") === null) return;
  state.folded[folded ? "add" : "delete"](item.dataset.key);
  drawTree(chosen());
}
$("tree").addEventListener("focusin", (event) => {
  const item = treeItem(event);
  if (!item) return;
  for (const other of $("tree").querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  item.setAttribute("tabindex", "0");
  state.focus = item.dataset.key;
});
$("tree").addEventListener("click", (event) => {
  const item = treeItem(event);
  item?.focus();
  if (event.target.closest(".fold")) fold(item, item.getAttribute("aria-expanded") === "true");
});
$("tree").addEventListener("keydown", (event) => {
  const item = treeItem(event);
  if (!item) return;
  const shown = [...$("tree").querySelectorAll('[role="treeitem"]')];
  const at = shown.indexOf(item);
  const level = (each) => Number(each.getAttribute("aria-level"));
  const open = item.getAttribute("aria-expanded") === "true";
  if (event.key === "ArrowDown") shown[at + 1]?.focus();
  else if (event.key === "ArrowUp") shown[at - 1]?.focus();
  else if (event.key === "Home") shown[0]?.focus();
  else if (event.key === "End") shown.at(-1)?.focus();
  else if (event.key === "ArrowRight") { if (open) shown[at + 1]?.focus(); else fold(item, false); }
  else if (event.key === "ArrowLeft") { if (open) fold(item, true); else shown.slice(0, at).findLast((each) => level(each) < level(item))?.focus(); }
  else return;
  event.preventDefault();
});

function drawDeaths() {
  fill($("deaths"), state.deaths.length
    ? element("ol", { tabindex: "0", "aria-label": "Deaths" }, state.deaths.map((death) => element("li", { "data-key": `${death.at} ${death.node} ${death.pid}` },
        clock(death.at),
        element("span", {}, element("strong", {}, death.name || death.pid), ` ${death.pid} `, element("span", { class: "dim" }, `on ${death.node} `), element("span", { class: "reason" }, death.reason)))))
    : none("None since this page looks."));
}

// --- queries ------------------------------------------------------------------------------------

const KINDS = { live: "good", idle: "good", standby: "good", loading: "warn", "catching up": "warn", paused: "warn", stuck: "bad", stopped: "bad", "no answer": "bad" };
const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en").replaceAll(",", "\u202f"));

function drawQueries(node) {
  const button = (query, order, text, id = null) => state.mayChange
    ? element("button", { type: "button", "data-key": `${query} ${order} ${id}`, "data-query": query, "data-order": order, "data-id": id }, text) : null;
  const counted = (value, what) => element("span", { class: "dim" }, `${number(value)} ${what}`);
  const found = (node?.queries ?? []).map((query) => {
    const hasPosition = query.position !== null && query.position !== undefined;
    const end = hasPosition ? query.position + (query.lag ?? 0) : 0;
    return element("div", { class: "query", "data-key": query.name },
      element("p", {}, element("strong", {}, query.name), element("span", { class: "dim" }, `${query.kind} query`), element("span", { class: `chip ${KINDS[query.state] ?? ""}` }, query.state),
        query.left > 3 ? element("span", { class: "dim" }, `about ${span(1000 * query.left)} left`) : null),
      hasPosition ? element("progress", { max: end || 1, value: end ? query.position : 1, "aria-label": `Progress of ${query.name}` }) : null,
      element("p", {}, hasPosition ? element("span", { class: "dim" }, `position ${number(query.position)} of ${number(end)}`) : null,
        counted(query.lag, hasPosition ? "behind" : "wait"), counted(query.processed, "processed"), counted(query.parked, "parked")),
      query.error ? element("pre", { class: "reason" }, query.error) : null,
      state.mayChange ? element("div", { class: "buttons" },
        query.state === "paused" ? button(query.name, "resume", "Resume") : button(query.name, "pause", "Pause"),
        query.kind === "durable" ? button(query.name, "replay", "Replay") : null, query.parked ? button(query.name, "drive", "Drive all") : null) : null,
      (query.events ?? []).map((event) => element("details", { "data-key": `event ${event.id}` },
        element("summary", {}, `event ${event.sequence} of ${event.aggregate_id}, ${event.attempts} attempt${event.attempts === 1 ? "" : "s"} `, button(query.name, "drive", "Drive", event.id)),
        element("pre", { class: "reason" }, event.error ?? ""), element("pre", {}, event.raw))),
    );
  });
  fill($("queries"), found.length ? found : none("None."));
}

$("queries").addEventListener("click", async (event) => {
  const button = event.target.closest("[data-order]");
  if (!button) return;
  event.preventDefault(); // else it unfolds what it stands in
  const { query, order, id } = button.dataset;
  try {
    const response = await fetch("api/queries", {
      method: "POST", headers: { ...headers(), "Content-Type": "application/json" },
      body: JSON.stringify({ node: state.chosen, query, order, id: id === undefined ? null : Number(id) }),
    });
    const answer = await response.json();
    say(response.ok ? "live" : `${query}: ${answer.error}`, !response.ok);
  } catch (error) {
    say(`${query}: no connection to the server`, true);
  }
});

// --- events and groups --------------------------------------------------------------------------

function drawEvents() {
  const { sources, errors, trees } = state.events;
  const item = (event) => element("li", { "data-key": event.id },
    element("div", { class: "line" }, element("strong", {}, event.name), element("span", { class: "dim" }, event.id),
      event.node ? element("span", { class: "dim" }, `on ${event.node}`) : null, event.at ? clock(event.at) : null),
    event.caused.length ? element("ul", {}, event.caused.map(item)) : null);
  fill($("events"), errors.map(({ source, error }) => element("p", { class: "reason" }, `${source}: ${error}`)),
    trees.length ? element("div", { tabindex: "0", role: "group", "aria-label": "Events" }, element("ul", {}, trees.map(item))) : none(sources.length ? "None yet." : "No service of events here."));
}

function drawGroups() {
  const kinds = { pg: "pg", syn_groups: "syn groups", syn_registry: "syn names" };
  const shown = (member) => element("span", { class: `chip ${member.missing.length ? "warn" : ""}`, title: member.meta ?? "" },
    `${member.pid} on ${member.node}${member.meta ? ` ${member.meta}` : ""}${member.missing.length ? ` – not known on ${member.missing.join(", ")}` : ""}`);
  fill($("groups"), state.groups.length ? state.groups.map((scope) => element("div", { "data-key": `${scope.kind} ${scope.scope}` },
    element("h3", {}, `${kinds[scope.kind] ?? scope.kind} ${scope.scope} `, element("span", { class: "dim" }, `on ${scope.nodes.join(", ")}`)),
    scope.groups.length ? element("dl", {}, scope.groups.flatMap((group) => [
      element("dt", {}, group.name),
      element("dd", {}, group.members.slice(0, SHOWN).map(shown), group.members.length > SHOWN ? element("span", { class: "dim" }, `and ${group.members.length - SHOWN} more`) : null,
        group.members.length ? null : element("span", { class: "dim" }, "nobody")),
    ])) : none("Nobody."))) : none("None."));
}

drawDeaths();
if (location.hash) history.replaceState(null, "", location.pathname);
if (token) follow(); else askForToken(false);
