// Second of three: maps painted (when first shown, and when what they depend on changes), drawn, moved.

const painted = {};

function rgba([red, green, blue]) {
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
}

function paint(name) {
  const levels = score && name === 'selected' && state.step !== score.own;
  const key = name === 'selected' ? state.step : changes.includes(name) ? name : [...state.hidden].join();
  const old = painted[name];
  if (old && old.key === key) return old.canvas;
  const lookup = new Uint32Array(65536);
  let plane = planes[name];
  if (name === 'selected') {
    plane = levels ? planes.score : plane;
    lookup.fill(rgba(data.paint.selected), levels ? state.step + 1 : 1);
  } else if (name === 'score') {
    const last = score.steps.length;
    for (let i = 0; i <= last; i++) lookup[i] = rgba(data.viridis[Math.round(255 * i / last)]);
  } else if (changes.includes(name)) {
    plane = planes.change;
    lookup[changes.indexOf(name) + 1] = rgba(data.paint[name]);
  } else {
    colors.forEach((color, k) => { lookup[k] = state.hidden.has(k) ? 0 : rgba(color); });
  }
  const canvas = old ? old.canvas : Object.assign(document.createElement('canvas'), {width: W, height: H});
  const image = new ImageData(W, H), out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels; i++) out[i] = lookup[plane[i]];
  canvas.getContext('2d').putImageData(image, 0, 0);
  painted[name] = {canvas, key};
  return canvas;
}

const viewer = $('viewer'), canvas = $('canvas'), context = canvas.getContext('2d');
let waiting = false;

function draw() {
  if (!waiting) { waiting = true; requestAnimationFrame(drawNow); }
}

function drawNow() {
  waiting = false;
  const middle = (state.peek ? 1 : state.split) * canvas.width;
  context.clearRect(0, 0, canvas.width, canvas.height);
  drawSide(state.left, 0, middle);
  drawSide(state.right, middle, canvas.width);
  $('divider').style.left = `${100 * state.split}%`;
  $('divider').hidden = state.peek;
  $('divider').setAttribute('aria-valuenow', Math.round(100 * state.split));
  $('scale').textContent = `${Math.round(100 * state.scale * devicePixelRatio)} %`;
}

function drawSide(view, from, to) {
  const dots = devicePixelRatio, scale = state.scale * dots;
  context.save();
  context.beginPath(); context.rect(from, 0, to - from, canvas.height); context.clip();
  context.setTransform(scale, 0, 0, scale, state.x * dots, state.y * dots);
  context.imageSmoothingEnabled = scale < 1.5;  // near, a pixel is a square
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0);
  context.globalAlpha = state.opacity;
  if (view !== 'image') context.drawImage(paint(view), 0, 0);
  for (const name of ['score', 'selected', ...changes]) {
    context.globalAlpha = name === 'selected' ? .6 : .9;
    if (state.on.has(name)) context.drawImage(paint(name), 0, 0);
  }
  context.restore();
}

// ---- Moving about ----

const within = (value, low, high) => Math.min(Math.max(value, low), high);

function fit() {
  state.scale = Math.min(viewer.clientWidth / W, viewer.clientHeight / H);
  state.x = (viewer.clientWidth - W * state.scale) / 2;
  state.y = (viewer.clientHeight - H * state.scale) / 2;
  state.fitted = true;
  draw();
}

function move(x, y) {
  state.x = within(x, 60 - W * state.scale, viewer.clientWidth - 60);
  state.y = within(y, 60 - H * state.scale, viewer.clientHeight - 60);
  state.fitted = false;
  draw();
}

function zoom(factor, x = viewer.clientWidth / 2, y = viewer.clientHeight / 2) {
  const scale = within(state.scale * factor, Math.min(.02, 100 / W), 64), ratio = scale / state.scale;
  state.scale = scale;
  move(x - (x - state.x) * ratio, y - (y - state.y) * ratio);
}

function split(share) {
  state.split = within(share, 0, 1);
  draw();
}

const place = event => {
  const box = viewer.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

function listen() {
  const fingers = new Map();
  canvas.addEventListener('pointerdown', event => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
  });
  canvas.addEventListener('pointermove', event => {
    const [x, y] = place(event), last = fingers.get(event.pointerId);
    readOut(Math.floor((x - state.x) / state.scale), Math.floor((y - state.y) / state.scale));
    if (!last) return;
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    fingers.set(event.pointerId, [x, y]);
    if (other) {  // two fingers: what was between them stays between them
      const [, [u, v]] = other, before = Math.hypot(last[0] - u, last[1] - v);
      zoom(Math.hypot(x - u, y - v) / Math.max(before, 1), (x + u) / 2, (y + v) / 2);
      move(state.x + (x - last[0]) / 2, state.y + (y - last[1]) / 2);
    } else move(state.x + x - last[0], state.y + y - last[1]);
  });
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, e => fingers.delete(e.pointerId));
  canvas.addEventListener('pointerleave', () => { $('readout').textContent = ''; });
  canvas.addEventListener('dblclick', event => zoom(2, ...place(event)));
  viewer.addEventListener('wheel', event => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0015)), ...place(event));
  }, {passive: false});
  const step = 60, keys = {ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step]};
  const actions = {'+': () => zoom(1.25), '=': () => zoom(1.25), '-': () => zoom(.8), 0: fit,
    1: () => zoom(1 / state.scale / devicePixelRatio), ' ': () => { state.peek = true; draw(); }};
  canvas.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (keys[event.key]) move(state.x + keys[event.key][0], state.y + keys[event.key][1]);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });
  const unpeek = () => { state.peek = false; draw(); };
  canvas.addEventListener('keyup', event => event.key === ' ' && unpeek());
  canvas.addEventListener('blur', unpeek);
  const divider = $('divider');
  divider.addEventListener('pointerdown', event => divider.setPointerCapture(event.pointerId));
  divider.addEventListener('pointermove', event => {
    if (divider.hasPointerCapture(event.pointerId)) split(place(event)[0] / viewer.clientWidth);
  });
  divider.addEventListener('keydown', event => {
    const by = {ArrowLeft: -.02, ArrowDown: -.02, ArrowRight: .02, ArrowUp: .02, Home: -1, End: 1}[event.key];
    if (by) { split(state.split + by); event.preventDefault(); }
  });
  $('in').onclick = () => zoom(1.25);
  $('out').onclick = () => zoom(.8);
  $('fit').onclick = fit;
  $('full').onclick = actions[1];
  new ResizeObserver(() => {
    canvas.width = Math.round(viewer.clientWidth * devicePixelRatio);
    canvas.height = Math.round(viewer.clientHeight * devicePixelRatio);
    state.fitted ? fit() : draw();
  }).observe(viewer);
}

function readOut(x, y) {
  const inside = x >= 0 && y >= 0 && x < W && y < H, at = y * W + x;
  const parts = [`x ${x}, y ${y}`, ...views.slice(1).map(
    name => `${titles[name]}: ${classes[planes[name][at]] ?? 'none'}`)];
  if (score && inside) {
    const level = planes.score[at], {steps} = score;
    parts.push(`${score.name}: ${level ? steps[level - 1] : 0} to ${steps[level] ?? 'the highest'}`);
  }
  $('readout').textContent = inside ? parts.join(' · ') : '';
}
