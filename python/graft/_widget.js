// The live picture of a cluster. One plain module: nothing is built, nothing is fetched.
const ROLES = { leader: "#2e7d32", follower: "#1565c0", candidate: "#ef6c00", "pre-candidate": "#ffa040", learner: "#7b1fa2",
  paused: "#f9a825", failed: "#b71c1c", down: "#8e8e8e" };
const TERMS = ["#66c2a5", "#fc8d62", "#8da0cb", "#e78ac3", "#a6d854", "#ffd92f", "#e5c494", "#b3b3b3"];
const HEALTH = { healthy: "#2e7d32", degraded: "#d65f00", down: "#b71c1c" };
const MOMENTS_MAX = 1500, EVENTS_MAX = 400, BAND_SECONDS = 60, STRIP = 24;
const LABELS = { add: "+ node", kill: "kill", restart: "restart", pause: "pause", resume: "resume", isolate: "isolate",
  heal: "heal", transfer: "transfer leadership", snapshot: "snapshot", load: "load ▸", remove: "remove",
  promote: "promote", demote: "demote" };
const HINTS = { add: "start one more node and add it", kill: "end the chosen node as kill -9 would",
  restart: "start the chosen node again", pause: "have the chosen node stand still", resume: "have it go on",
  isolate: "cut the chosen node off from the others", heal: "end all faults of the network",
  transfer: "hand leadership to the chosen node", snapshot: "take a snapshot", load: "begin or end a stream of commands",
  remove: "remove the chosen member", promote: "let the chosen learner vote", demote: "let the chosen member not vote" };

const CSS = `
.graft { --fg: var(--jp-ui-font-color1, var(--vscode-editor-foreground, CanvasText));
  --soft: var(--jp-ui-font-color2, var(--vscode-descriptionForeground, GrayText));
  --bg: var(--jp-layout-color1, var(--vscode-editor-background, Canvas));
  --line: var(--jp-border-color1, rgba(128,128,128,.45));
  color: var(--fg); background: var(--bg); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px;
  font: 13px/1.45 system-ui, sans-serif; max-width: 968px; box-sizing: border-box; container-type: inline-size }
.graft * { box-sizing: border-box }
.graft header { border-bottom: 1px solid var(--line); padding-bottom: 7px; margin-bottom: 6px }
.graft .badge { color: #fff; border-radius: 9px; padding: 1px 9px; margin: 0 4px }
.graft .top { display: grid; grid-template-columns: 250px minmax(0, 1fr); gap: 4px 18px }
@container (max-width: 640px) { .graft .top { grid-template-columns: 1fr } }
.graft table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0; border: 0; width: auto }
.graft th, .graft td { text-align: left !important; padding: 1px 14px 1px 4px; border: 0; background: none; white-space: nowrap;
  color: var(--fg); font-size: 13px }
.graft tbody tr { cursor: pointer; background: none !important }
.graft tr[aria-selected=true] td:first-child { text-decoration: underline; text-underline-offset: 3px }
.graft .cap { color: var(--soft); font-size: 11px; margin: 6px 0 2px }
.graft svg { display: block; max-width: 100%; height: auto } .graft svg text { font-family: inherit }
.graft .scroll { overflow-x: auto }
.graft .bar { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 8px 0 6px }
.graft button, .graft select { font: inherit; color: var(--fg); background: var(--jp-layout-color2, rgba(128,128,128,.15));
  border: 1px solid var(--line); border-radius: 5px; padding: 2px 9px; cursor: pointer }
.graft button:hover:not(:disabled) { border-color: var(--fg) }
.graft button:disabled { opacity: .45; cursor: default }
.graft button:focus-visible, .graft select:focus-visible, .graft input:focus-visible { outline: 2px solid #1e88e5;
  outline-offset: 1px }
.graft .replay { display: flex; gap: 8px; align-items: center; color: var(--soft); font-size: 12px }
.graft .replay input { flex: 1; accent-color: #1e88e5; min-width: 80px }
.graft ol { list-style: none; margin: 6px 0 0; padding: 0; font: 12px/1.45 ui-monospace, monospace; max-height: 9em;
  overflow-y: auto } .graft ol li { white-space: pre-wrap; margin: 0 } .graft time { color: var(--soft); margin-right: 1ch }
.graft .say { min-height: 1.4em; color: var(--soft); font-size: 12px } .graft .say.bad { color: #d32f2f }
`;

const text = (value) => String(value ?? "").replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const known = (value) => (value === null || value === undefined ? "–" : text(value));
const roleOf = (row) => (row.role === "follower" && !row.voter ? "learner" : row.role);
const colour = (role) => ROLES[role] ?? ROLES.down;
const clock = (seconds) => {
  const at = new Date(seconds * 1000), two = (n) => String(n).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${Math.floor(at.getMilliseconds() / 100)}`;
};
const bytes = (n) => {
  if (n === null || n === undefined) return "–";
  for (const unit of ["B", "KiB", "MiB"]) { if (n < 1024) return `${unit === "B" ? n : n.toFixed(1)} ${unit}`; n /= 1024; }
  return `${n.toFixed(1)} GiB`;
};

function ring(moment, chosen) {
  const rows = moment.nodes, count = rows.length, at = {};
  rows.forEach((row, i) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * i) / Math.max(1, count), radius = count > 1 ? 86 : 0;
    at[row.id] = [125 + radius * Math.cos(angle), 122 + radius * Math.sin(angle)];
  });
  const size = count > 8 ? 18 : 25;
  let out = "";
  for (const [from, to, state] of moment.links) {
    if (!at[from] || !at[to]) continue;
    const [[x1, y1], [x2, y2]] = [at[from], at[to]];
    const look = { up: "stroke='var(--soft)'", down: "stroke='#d32f2f' stroke-dasharray='2 5'",
      cut: "stroke='#ef6c00' stroke-dasharray='7 4'", "cut one way": "stroke='#ef6c00' stroke-dasharray='7 4 2 4'" }[state];
    out += `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${look ?? ""} stroke-width="1.3"><title>${text(from)} to ${text(to)}: ${text(state)}</title></line>`;
  }
  for (const row of rows) {
    const [x, y] = at[row.id], r = size + 4;
    if (row.waited !== null && row.waited !== undefined && row.alive) {
      const end = -Math.PI / 2 + 2 * Math.PI * Math.min(0.999, row.waited), large = row.waited > 0.5 ? 1 : 0;
      out += `<path d="M ${x} ${y - r} A ${r} ${r} 0 ${large} 1 ${x + r * Math.cos(end)} ${y + r * Math.sin(end)}" fill="none" stroke="#ffb300" stroke-width="3"><title>how long ${text(row.id)} has heard nothing of a leader</title></path>`;
    }
    const mark = row.id === chosen ? " stroke='var(--fg)' stroke-width='2'" : "";
    out += `<g data-node="${text(row.id)}" style="cursor:pointer"><circle cx="${x}" cy="${y}" r="${size}" fill="${colour(roleOf(row))}"${mark}/>
      <text x="${x}" y="${y - 1}" text-anchor="middle" fill="#fff" font-size="12">${text(row.id.slice(0, 8))}</text>
      <text x="${x}" y="${y + 12}" text-anchor="middle" fill="#fff" font-size="9">${row.term === null ? "" : "T" + row.term}</text></g>`;
  }
  const words = rows.map((row) => `${row.id} ${row.condition ?? roleOf(row)}`).join(", ");
  return `<svg viewBox="0 0 250 244" width="250" role="img" aria-label="${text(words)}">${out}</svg>`;
}

function table(moment, chosen) {
  const names = ["node", "role", "match", "lag", "applied", "heard", "size", ""];
  const head = names.map((name) => `<th scope="col">${name}</th>`).join("");
  const body = moment.nodes.map((row) => {
    const role = roleOf(row), more = row.condition && row.condition !== "killed" && row.condition !== role ? ` (${row.condition})` : "";
    const heard = row.contact === null ? "–" : row.contact < 1 ? `${Math.round(row.contact * 1000)} ms` : `${row.contact.toFixed(1)} s`;
    const part = row.progress === null ? "" : `<progress max="1" value="${row.progress}" aria-label="${text(row.id)} catches up"></progress> ${Math.floor(row.progress * 100)}%`;
    return `<tr data-node="${text(row.id)}" aria-selected="${row.id === chosen}" title="${text(row.error ?? row.address)}"><td>${text(row.id)}</td>
      <td><span aria-hidden="true" style="color:${colour(role)}">●</span> ${text(role + (role === "learner" ? " (non-voter)" : "") + more)}</td>
      <td>${known(row.match)}</td><td>${known(row.lag)}</td><td>${known(row.applied)}</td><td>${heard}</td><td>${bytes(row.bytes)}</td><td>${part}</td></tr>`;
  }).join("");
  return `<table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table>`;
}

function strips(moment) {
  const last = Math.max(0, ...moment.nodes.map((row) => row.last ?? 0));
  const first = Math.max(1, last - STRIP + 1), wide = 24, tall = 24, left = 62;
  let out = "";
  for (let index = first; index <= last; index++) {
    if (index % 4 === 0) out += `<text x="${left + (index - first) * wide + 10}" y="10" text-anchor="middle" font-size="10" fill="var(--soft)">${index}</text>`;
  }
  moment.nodes.forEach((row, i) => {
    const y = 16 + i * tall;
    out += `<text x="0" y="${y + 14}" font-size="12" fill="var(--fg)">${text(row.id.slice(0, 8))}</text>`;
    for (const [index, term] of row.strip ?? []) {
      if (index < first) continue;
      const x = left + (index - first) * wide, is = index <= row.commit, done = index <= row.applied;
      out += `<rect x="${x}" y="${y}" width="21" height="19" rx="2" fill="${TERMS[term % TERMS.length]}" fill-opacity="${done ? 1 : is ? 0.7 : 0.3}" stroke="var(--fg)" stroke-opacity="${is ? 0.75 : 0.35}"${is ? "" : " stroke-dasharray='2 2'"}><title>${text(row.id)}: entry ${index} of term ${term}, ${done ? "applied" : is ? "committed" : "not committed"}</title></rect>`;
    }
    if (row.snapshot !== null && row.snapshot >= first) {
      out += `<rect x="${left - 2}" y="${y - 2}" width="${(Math.min(row.snapshot, last) - first + 1) * wide}" height="23" fill="none" stroke="#8e24aa" stroke-width="1.6"><title>in a snapshot</title></rect>`;
    }
    if (row.match !== null && row.match >= first) out += `<circle cx="${left + (row.match - first) * wide + 10}" cy="${y + 21}" r="3" fill="var(--fg)"/>`;
  });
  const width = left + STRIP * wide, height = 20 + moment.nodes.length * tall;
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" role="img" aria-label="the newest ${STRIP} entries of each log, up to ${last}">${out}</svg>`;
}

function bands(moments, until) {
  const begin = until - BAND_SECONDS, shown = moments.filter((m) => m.time >= begin && m.time <= until);
  const ids = [...new Set(shown.flatMap((m) => m.nodes.map((row) => row.id)))], left = 62, wide = 882;
  const x = (time) => left + ((Math.max(begin, time) - begin) / BAND_SECONDS) * wide;
  let out = "";
  ids.forEach((id, i) => {
    out += `<text x="0" y="${i * 24 + 14}" font-size="12" fill="var(--fg)">${text(id.slice(0, 8))}</text>`;
    let open = null;
    const close = (end) => { if (open) out += `<rect x="${x(open.time)}" y="${i * 24}" width="${Math.max(1, x(end) - x(open.time))}" height="19" fill="${colour(open.role)}"><title>${text(id)} ${text(open.role)}</title></rect>`; };
    for (const moment of shown) {
      const row = moment.nodes.find((one) => one.id === id), role = row && roleOf(row);
      if (open?.role !== role) { close(moment.time); open = role ? { role, time: moment.time } : null; }
    }
    close(shown.at(-1)?.time ?? until);
  });
  const top = ids.length * 24 + 6, tall = 66, points = [];
  let bin = null, most = 1;
  for (const moment of shown) {  // a point each second: looks come unevenly
    if (!bin) bin = moment;
    const span = moment.time - bin.time;
    if (span >= 1) { const rate = Math.max(0, moment.commit - bin.commit) / span; points.push([moment.time, rate]); most = Math.max(most, rate); bin = moment; }
  }
  const line = points.map(([time, rate]) => `${x(time).toFixed(1)},${(top + tall - 2 - (rate / most) * (tall - 10)).toFixed(1)}`).join(" ");
  out += `<text x="0" y="${top + 18}" font-size="12" fill="var(--soft)">${points.length ? Math.round(points.at(-1)[1]) : 0}</text><text x="0" y="${top + 33}" font-size="11" fill="var(--soft)">entries/s</text>`;
  out += `<polyline points="${line}" fill="none" stroke="#0097a7" stroke-width="2"/>`;
  const height = top + tall;
  return `<svg viewBox="0 0 ${left + wide} ${height}" width="${left + wide}" role="img" aria-label="roles of ${ids.length} nodes and entries a second over the last minute">${out}</svg>`;
}

function header(title, moment, calls) {
  const spare = moment.spare < 0 ? "<b>no majority</b>" : `can lose <b>${moment.spare}</b> node${moment.spare === 1 ? "" : "s"}`;
  const speed = calls ? ` · ${calls.rate} calls/s · p99 ${calls.p99} ms` : "";
  const trouble = moment.trouble || moment.change;
  return `<b>${text(title)}</b><span class="badge" style="background:${HEALTH[moment.health]}">${moment.health}</span>term <b>${moment.term}</b> · leader <b data-leader>${text(moment.leader ?? "none")}</b> · commit <b>${moment.commit}</b>${speed} · ${spare}${trouble ? ` · ${text(trouble)}` : ""}`;
}

function recentCalls(moments, at) {
  const recent = moments.slice(Math.max(0, at - 9), at + 1).filter((m) => m.calls?.count);
  if (!recent.length) return null;
  const count = recent.reduce((sum, m) => sum + m.calls.count, 0);
  const span = Math.max(0.2, moments[at].time - moments[Math.max(0, at - 10)].time);
  return { rate: Math.round(count / span), p99: (Math.max(...recent.map((m) => m.calls.p99)) * 1000).toFixed(1) };
}

const stores = new WeakMap();

// What is known of a model, shared by all its views.
function storeOf(model) {
  if (stores.has(model)) return stores.get(model);
  const first = model.get("initial") ?? {};
  const store = { moments: [...(first.moments ?? [])], events: [...(first.events ?? [])], said: "", bad: false, views: new Set(), loading: first.loading ?? false, ended: false };
  model.on("msg:custom", (news) => {
    if (news.moment) store.moments.push(news.moment);
    if (news.events) store.events.push(...news.events);
    if (news.said !== undefined) { store.said = news.said; store.bad = !!news.bad; }
    if (news.loading !== undefined) store.loading = news.loading;
    if (news.ended) store.ended = true;
    if (store.moments.length > MOMENTS_MAX) store.moments.splice(0, store.moments.length - MOMENTS_MAX);
    if (store.events.length > EVENTS_MAX) store.events.splice(0, store.events.length - EVENTS_MAX);
    for (const view of store.views) view();
  });
  stores.set(model, store);
  return store;
}

function render({ model, el }) {
  const store = storeOf(model), first = model.get("initial") ?? {};
  const actions = first.actions ?? [];
  const root = document.createElement("section");
  root.className = "graft";
  root.setAttribute("aria-label", `cluster ${first.title}`);
  root.innerHTML = `<style>${CSS}</style><header></header>
    <div class="top"><div class="ring"></div><div><div class="scroll table"></div>
    <div class="cap">log (colour = term, faded = not applied, dashed = not committed, box = in snapshot, dot = match index)</div><div class="scroll strips"></div></div></div>
    <div class="cap">last 60 s: role of each node, entries committed</div><div class="bands"></div>
    <div class="bar" role="toolbar" aria-label="actions"></div>
    <label class="replay"><span>replay</span><input type="range" min="0" step="1" aria-label="replay"><output></output></label>
    <div class="say" role="status" aria-live="polite"></div><ol aria-label="events" tabindex="0"></ol>`;
  const find = (selector) => root.querySelector(selector);
  const bar = find(".bar"), slider = find("input"), list = find("ol");
  let chosen = null, live = true, at = 0, shownEvents = "";
  const select = document.createElement("select");
  select.setAttribute("aria-label", "node");
  select.onchange = () => { chosen = select.value || null; draw(); };
  if (actions.length) bar.append(select);
  for (const action of actions) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: LABELS[action] ?? action, title: HINTS[action] ?? "" });
    button.dataset.action = action;
    button.onclick = () => { store.said = `${LABELS[action]} …`; store.bad = false; model.send({ do: action, id: chosen }); draw(); };
    bar.append(button);
  }
  root.addEventListener("click", (event) => {
    const target = event.target.closest("[data-node]");
    if (target) { chosen = chosen === target.dataset.node ? null : target.dataset.node; draw(); }
  });
  slider.oninput = () => { at = Number(slider.value); live = at >= store.moments.length - 1; draw(); };

  function choices(moment) {
    const ids = ["", ...moment.nodes.map((row) => row.id)];
    if ([...select.options].map((option) => option.value).join() !== ids.join()) {
      select.replaceChildren(...ids.map((id) => new Option(id || "the leader", id)));
    }
    if (chosen && !ids.includes(chosen)) chosen = null;
    select.value = chosen ?? "";
  }

  function draw() {
    const moments = store.moments;
    if (!moments.length) return;
    if (live || at >= moments.length) at = moments.length - 1;
    const moment = moments[at];
    choices(moment);
    find("header").innerHTML = header(first.title, moment, recentCalls(moments, at));
    find(".ring").innerHTML = ring(moment, chosen);
    find(".table").innerHTML = table(moment, chosen);
    find(".strips").innerHTML = strips(moment);
    find(".bands").innerHTML = bands(moments, moment.time);
    slider.max = String(moments.length - 1);
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", live ? "live" : clock(moment.time));
    find("output").textContent = store.ended ? "ended" : live ? "live" : clock(moment.time);
    for (const button of bar.querySelectorAll("button")) {
      button.disabled = store.ended || !live;
      if (button.dataset.action === "load") button.textContent = store.loading ? "load ■" : "load ▸";
    }
    const say = find(".say");
    if (say.textContent !== store.said) say.textContent = store.said;
    say.classList.toggle("bad", store.bad);
    const events = store.events.filter((event) => event.time <= moment.time + 0.3).slice(-60);
    const html = events.map((event) => `<li><time>${clock(event.time)}</time>${text(event.words)}</li>`).join("");
    if (html !== shownEvents) {
      const follows = list.scrollTop + list.clientHeight >= list.scrollHeight - 24;
      list.innerHTML = shownEvents = html;
      if (follows) list.scrollTop = list.scrollHeight;
    }
  }

  el.append(root);
  store.views.add(draw);
  draw();
  list.scrollTop = list.scrollHeight;
  return () => store.views.delete(draw);
}

export default { initialize({ model }) { storeOf(model); }, render };
