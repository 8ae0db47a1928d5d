'use strict';
// First of three scripts that page.py joins: the data, and what is counted in them.
// planes[name][row * W + column] is what a pixel is, in numbers. Classes are 0 to K - 1, K is none;
// a score is the number of steps that it exceeds, so that score > steps[i] is planes.score > i.
const $ = id => document.getElementById(id);
const data = JSON.parse($('data').textContent);
const {width: W, height: H, classes, colors, names, score} = data;
const K = classes.length, pixels = W * H, planes = {};
const has = name => name in data.planes;
const titles = {image: 'Picture', before: names.before, result: names.result, label: 'Ground truth'};
const views = ['image', ...['before', 'result', 'label'].filter(has)];
const changes = ['fixed', 'made', 'left'];  // planes.change is 1, 2, 3
const state = {left: has('before') ? 'before' : 'image', right: 'result', split: .5, peek: false,
  x: 0, y: 0, scale: 1, fitted: true, opacity: .65, step: score ? score.own : 0,
  on: new Set(), hidden: new Set()};
let picture, counts;

// ---- The numbers ----

function bytes(text) {
  return Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
}

async function inflate(name) {
  const stream = new Blob([bytes(data.planes[name])]).stream();
  const buffer = await new Response(stream.pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
  const wide = data.wide && ['before', 'result', 'label'].includes(name);
  return wide ? new Uint16Array(buffer) : new Uint8Array(buffer);
}

// One pass over the pixels: whatever stands on the page comes from these counts.
function count() {
  const {before, result, label, score: level, selected} = planes;
  const table = n => new Float64Array(n);
  const c = {change: table(4), all: table(257), known: table(257), wrong: table(257),
    taken: {all: 0, known: 0, wrong: 0}, share: table(K + 1), truth: table(K + 1), labeled: 0,
    right: {before: 0, result: 0}, hits: {before: table(K + 1), result: table(K + 1)},
    seen: {before: table(K + 1), result: table(K + 1)}};
  if (label) planes.change = new Uint8Array(pixels);
  for (let i = 0; i < pixels; i++) {
    c.share[result[i]]++;
    const known = label && label[i] !== K, wrong = known && before && before[i] !== label[i];
    if (level) {
      c.all[level[i]]++; c.known[level[i]] += known; c.wrong[level[i]] += wrong;
      if (selected[i]) { c.taken.all++; c.taken.known += known; c.taken.wrong += wrong; }
    }
    if (!known) continue;
    const truth = label[i], failed = result[i] !== truth;
    c.labeled++; c.truth[truth]++;
    for (const name of ['before', 'result']) {
      if (!planes[name]) continue;
      const guess = planes[name][i];
      c.seen[name][guess]++;
      if (guess === truth) { c.hits[name][truth]++; c.right[name]++; }
    }
    const kind = !failed ? (wrong ? 1 : 0) : before && !wrong ? 2 : 3;
    planes.change[i] = kind; c.change[kind]++;
  }
  return c;
}

// What a threshold selects. At the model's own it is what the model took, a budget included.
function figures(step, own = score.own) {
  let {all, known, wrong} = counts.taken;
  if (step !== own) {
    all = known = wrong = 0;
    for (let level = step + 1; level < 257; level++) {
      all += counts.all[level]; known += counts.known[level]; wrong += counts.wrong[level];
    }
  }
  const errors = counts.labeled - counts.right.before;
  return {density: all / pixels, recall: wrong / errors, precision: wrong / known};
}

const percent = (value, digits = 2) => Number.isFinite(value) ? `${(100 * value).toFixed(digits)} %` : '–';
