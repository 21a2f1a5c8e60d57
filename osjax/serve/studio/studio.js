// The studio: one page over the videos API. It asks nobody but the server that it came from, and puts no text of a
// user's into the page as HTML.

const $ = (id) => document.getElementById(id);
const files = { first: null, last: null };
const cards = new Map(); // id -> {item, stamp}
const picked = new Set();
let key = sessionStorage.getItem("osjax-key") || "";
let models = [];
let after = null;

let reported = 0;
function report(message, where) {
  if (reported++ >= 20) return;
  const body = JSON.stringify({ message: String(message).slice(0, 500), where: String(where || "").slice(0, 500) });
  fetch("/studio/errors", { method: "POST", body, headers: { "Content-Type": "application/json" } }).catch(() => {});
}
addEventListener("error", (event) => report(event.message, `${event.filename}:${event.lineno}`));
addEventListener("unhandledrejection", (event) => report(event.reason, event.reason && event.reason.stack));

async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    await askKey();
    return ask(path, options);
  }
  if (!answer.ok) {
    let text = `The server answered ${answer.status}`;
    try { text = (await answer.json()).error.message; } catch { /* no JSON of ours */ }
    throw Object.assign(new Error(text), { refused: true });
  }
  return answer;
}

let asking = null;
function askKey() {
  asking ??= new Promise((done) => {
    $("key").showModal();
    $("key").addEventListener("close", () => {
      key = $("key-text").value.trim();
      sessionStorage.setItem("osjax-key", key);
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

async function told(work) {
  $("problem").textContent = "";
  try {
    return await work();
  } catch (error) {
    $("problem").textContent = error.message;
    if (!error.refused) report(error.message, error.stack);
    return null;
  }
}

function make(tag, text, props = {}) {
  const node = Object.assign(document.createElement(tag), props);
  if (text) node.textContent = text;
  return node;
}

async function blobOf(path) {
  return URL.createObjectURL(await (await ask(path)).blob());
}

function button(text, label, act) {
  const node = make("button", text, { type: "button" });
  node.setAttribute("aria-label", label);
  node.addEventListener("click", () => told(act));
  return node;
}

function place(field, file) {
  files[field] = file;
  const shown = $(`${field}-shown`);
  shown.hidden = !(file && file.type.startsWith("image/"));
  if (!shown.hidden) shown.src = URL.createObjectURL(file);
  else shown.removeAttribute("src");
}

function fill(video) {
  const settings = video.settings || video;
  $("prompt").value = video.prompt || "";
  $("size").value = `${settings.width}x${settings.height}`;
  $("seconds").value = settings.frames / settings.fps;
  $("steps").value = settings.steps;
  $("seed").value = settings.seed;
  $("guidance").value = settings.guidance;
  $("negative").value = settings.negative || "";
  $("motion").value = settings.motion_score ?? "";
  if (models.some((model) => model.id === video.model)) $("model").value = video.model;
  if ($("lora").value !== (video.lora || "")) $("lora").value = video.lora || "";
  $("mode").value = settings.mode === "t2v" ? "t2v" : "";
  $("prompt").focus();
}

async function settingsIn(file) {
  // Files that were made here tell how; any other is a reference.
  const answer = await fetch("/v1/videos/settings", { method: "POST", body: file, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  return answer.ok ? answer.json() : null;
}

async function given(list, field) {
  let next = field;
  for (const file of list) {
    const settings = next === "first" ? await settingsIn(file) : null;
    if (settings) fill(settings);
    else { place(next, file); next = "last"; }
  }
}

async function submit() {
  const form = new FormData();
  for (const name of ["prompt", "model", "mode", "size", "seconds", "steps", "motion", "seed", "guidance", "negative", "samples", "lora"]) {
    const value = $(name).value.trim();
    if (value) form.append(name, value);
  }
  if (files.first) form.append("input_reference", files.first, "first");
  if (files.last) form.append("last_reference", files.last, "last");
  const video = await (await ask("/v1/videos", { method: "POST", body: form })).json();
  show(video);
}

function line(video) {
  if (video.status === "queued") {
    return `Waits at place ${video.place ?? "?"}${video.seconds_left ? `, takes about ${Math.ceil(video.seconds_left)} s` : ""}`;
  }
  if (video.status === "in_progress") {
    return `Step ${video.step ?? 0} of ${video.steps}${video.seconds_left != null ? `, ${Math.ceil(video.seconds_left)} s left` : ""}`;
  }
  return video.status === "failed" ? `Failed: ${video.error.message}` : `${video.size}, ${video.seconds} s, seed ${video.seed}`;
}

function cardOf(id) {
  if (!cards.has(id)) cards.set(id, { item: make("li"), status: "", number: 0 });
  return cards.get(id);
}

function show(video, end = false) {
  const card = cardOf(video.id);
  const over = video.status === "completed" || video.status === "failed";
  if (card.status !== video.status) {
    card.status = video.status;
    card.item.replaceChildren();
    card.item.dataset.id = video.id;
    card.item.dataset.status = video.status;
    card.item.dataset.prompt = video.prompt.toLowerCase();
    if (over) finish(card, video);
    else wait(card, video);
    const list = over ? $("gallery") : $("queue");
    if (card.item.parentNode !== list) list[end || !over ? "append" : "prepend"](card.item);
  }
  if (!over) {
    card.bar.value = video.progress;
    card.line.textContent = line(video);
    if (video.preview) { card.picture.hidden = false; card.picture.src = video.preview; }
  }
  filter(card.item);
}

function wait(card, video) {
  card.picture = make("img", "", { alt: `Preview of ${video.prompt}`, hidden: true });
  card.bar = make("progress", "", { max: 100 });
  card.bar.setAttribute("aria-label", `Progress of ${video.prompt}`);
  card.line = make("p", "", { className: "hint" });
  const stop = button("Cancel", `Cancel ${video.prompt}`, () => ask(`/v1/videos/${video.id}/cancel`, { method: "POST" }));
  const row = make("div", "", { className: "row" });
  row.append(stop);
  card.item.append(card.picture, make("p", video.prompt), card.bar, card.line, row);
}

function finish(card, video) {
  const row = make("div", "", { className: "row" });
  card.item.append(make("p", video.prompt), make("p", line(video), { className: "hint" }), row);
  if (video.status === "completed") {
    const still = video.frames === 1;
    const media = make(still ? "img" : "video", "", still ? { alt: video.prompt } : { loop: true, muted: true, controls: true });
    if (!still) media.setAttribute("aria-label", video.prompt);
    card.item.prepend(media);
    blobOf(`/v1/videos/${video.id}/content`).then((url) => { media.src = url; }).catch(() => {});
    row.append(
      button("Again", `Again with this seed: ${video.prompt}`, () => fill(video)),
      button("Animate last frame", `Animate the last frame of ${video.prompt}`, () => animate(video)),
      ...(still ? [] : [button("Longer", `Make longer: ${video.prompt}`, () => askLonger(video))]),
      button("Download", `Download ${video.prompt}`, () => download(video)),
    );
    if (video.seams?.length) card.item.insertBefore(seams(video, media), row);
    const mark = make("input", "", { type: "checkbox" });
    mark.addEventListener("change", () => {
      picked[mark.checked ? "add" : "delete"](video.id);
      $("compare").disabled = picked.size !== 2;
    });
    const label = make("label", "Compare ");
    label.append(mark);
    row.append(label);
  }
  row.append(button("Delete", `Delete ${video.prompt}`, async () => {
    await ask(`/v1/videos/${video.id}`, { method: "DELETE" });
    gone(video.id);
  }));
}

async function animate(video) {
  const data = await (await ask(`/v1/videos/${video.id}/content?variant=last_frame`)).blob();
  fill(video);
  $("mode").value = "i2v_head";
  $("seed").value = "";
  place("first", new File([data], "last.png", { type: "image/png" }));
}

function askLonger(video) {
  $("longer-form").dataset.id = video.id;
  $("longer-prompt").value = video.prompt;
  $("longer-seconds").value = video.seconds;
  $("longer").showModal();
}

async function makeLonger() {
  $("longer").close();
  const body = JSON.stringify({
    prompt: $("longer-prompt").value,
    seconds: Number($("longer-seconds").value),
    video: { id: $("longer-form").dataset.id },
  });
  show(await (await ask("/v1/videos/extensions", { method: "POST", body, headers: { "Content-Type": "application/json" } })).json());
}

function seams(video, media) {
  // A strip as long as the video, with a mark where each window begins; a mark plays the video over its seam.
  const strip = make("div", "", { className: "seams" });
  for (const [n, at] of video.seams.entries()) {
    const mark = button(String(n + 1), `Play over seam ${n + 1} at ${at.toFixed(2)} seconds`, async () => {
      media.currentTime = Math.max(0, at - 0.5);
      await media.play();
    });
    mark.style.left = `${(100 * at) / Number(video.seconds)}%`;
    strip.append(mark);
  }
  return strip;
}

async function download(video) {
  const link = make("a", "", { href: await blobOf(`/v1/videos/${video.id}/content`), download: `${video.id}.${video.frames === 1 ? "png" : "mp4"}` });
  link.click();
}

function gone(id) {
  cards.get(id)?.item.remove();
  cards.delete(id);
  picked.delete(id);
}

function filter(item) {
  const words = $("search").value.trim().toLowerCase();
  item.hidden = item.parentNode === $("gallery") && words !== "" && !item.dataset.prompt.includes(words);
}

async function compare() {
  const pair = await Promise.all([...picked].map(async (id) => {
    const video = make("video", "", { muted: true, loop: true, src: await blobOf(`/v1/videos/${id}/content`) });
    video.setAttribute("aria-label", cards.get(id)?.item.dataset.prompt || id);
    return video;
  }));
  $("pair").replaceChildren(...pair);
  // The first one leads, the other follows its time.
  pair[0].addEventListener("timeupdate", () => {
    if (Math.abs(pair[1].currentTime - pair[0].currentTime) > 0.1) pair[1].currentTime = pair[0].currentTime;
  });
  $("beside").showModal();
}

async function load(search = "") {
  const query = new URLSearchParams({ limit: "20", ...(after ? { after } : {}), ...(search ? { search } : {}) });
  const page = await (await ask(`/v1/videos?${query}`)).json();
  for (const video of page.data) if (!cards.has(video.id)) show(video, true);
  after = page.last_id ?? after;
  $("more").hidden = !page.has_more;
}

async function follow() {
  for (;;) {
    try {
      const answer = await ask("/v1/videos/all/events");
      $("state").textContent = "connected";
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const parts = text.split("\n\n");
        text = parts.pop();
        for (const part of parts) heard(part);
      }
    } catch { /* the server is away: asked again */ }
    $("state").textContent = "The server is away; asking again";
    await new Promise((done) => setTimeout(done, 1000));
  }
}

function heard(part) {
  const name = part.match(/^event: (\w+)$/m);
  const data = part.match(/^data: (.*)$/m);
  if (!name || !data) return;
  const value = JSON.parse(data[1]);
  if (name[1] === "video") show(value);
  else gone(value.id);
}

function modelChosen() {
  const model = models.find((one) => one.id === $("model").value);
  if (!model) return;
  const defaults = model.defaults;
  $("size").placeholder = `${defaults.width}x${defaults.height}`;
  $("seconds").placeholder = String(defaults.frames / defaults.fps);
  $("steps").placeholder = String(defaults.steps);
  $("guidance").placeholder = String(defaults.guidance);
  $("motion").placeholder = String(defaults.motion_score ?? "");
  $("lora-label").hidden = !model.loras.length;
  $("lora").replaceChildren(make("option", "none", { value: "" }), ...model.loras.map((name) => make("option", name, { value: name })));
  $("mode").replaceChildren(make("option", "by the files", { value: "" }), ...model.modes.map((mode) => make("option", mode, { value: mode })));
}

async function refine() {
  const body = JSON.stringify({ prompt: $("prompt").value, given: Boolean(files.first || files.last) });
  const fuller = await (await ask("/v1/videos/refine", { method: "POST", body, headers: { "Content-Type": "application/json" } })).json();
  $("prompt").value = fuller.prompt;
  if (!$("motion").value) $("motion").value = fuller.motion;
  $("prompt").focus();
}

async function start() {
  const served = await (await ask("/v1/models")).json();
  models = served.data;
  $("refine").hidden = !served.refines;
  $("model").replaceChildren(...models.map((model) => make("option", model.id, { value: model.id })));
  modelChosen();
  await load();
  follow();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); told(submit); });
$("form").addEventListener("reset", () => { place("first", null); place("last", null); });
$("refine").addEventListener("click", () => told(refine));
$("model").addEventListener("change", modelChosen);
for (const field of ["first", "last"]) {
  $(field).addEventListener("change", (event) => told(() => (event.target.files.length ? given(event.target.files, field) : place(field, null))));
}
$("drop").addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  told(() => given([...event.dataTransfer.files], "first"));
});
addEventListener("paste", (event) => {
  const list = [...(event.clipboardData?.files || [])];
  if (list.length) { event.preventDefault(); told(() => given(list, files.first ? "last" : "first")); }
});
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName || "");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); $("form").requestSubmit(); }
  else if (event.key === "/" && !typing) { event.preventDefault(); $("search").focus(); }
  else if (event.key === "Escape" && typing) document.activeElement.blur();
});
$("search").addEventListener("input", () => {
  for (const { item } of cards.values()) filter(item);
  after = null;
  clearTimeout($("search").timer);
  $("search").timer = setTimeout(() => told(() => load($("search").value.trim())), 300);
});
$("more").addEventListener("click", () => told(() => load($("search").value.trim())));
$("compare").addEventListener("click", () => told(compare));
$("longer-form").addEventListener("submit", (event) => { event.preventDefault(); told(makeLonger); });
$("longer-close").addEventListener("click", () => $("longer").close());
$("close").addEventListener("click", () => $("beside").close());
$("play").addEventListener("click", () => {
  const pair = [...$("pair").children];
  const act = pair[0].paused ? "play" : "pause";
  for (const video of pair) video[act]();
});
told(start);
