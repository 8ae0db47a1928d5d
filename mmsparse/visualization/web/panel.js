// Third of three: the panel beside the picture, and the start.

function element(name, properties = {}, ...children) {
  const {style, ...rest} = properties, made = Object.assign(document.createElement(name), rest);
  if (style) made.style.background = style;
  made.append(...children);
  return made;
}

const css = color => `rgb(${color.join(' ')})`;

function showThreshold() {
  const {density, recall, precision} = figures(state.step), own = state.step === score.own;
  const value = score.steps[state.step];
  $('threshold').value = state.step;
  $('value').textContent = `${score.threshold} = ${value}`;
  $('own').disabled = own;
  $('density').textContent = percent(density);
  $('recall').textContent = percent(recall);
  $('precision').textContent = percent(precision);
  $('threshold').setAttribute('aria-valuetext', `${score.threshold} ${value}, density ${percent(density)}`
    + (has('label') ? `, recall ${percent(recall)}` : ''));
  const now = document.querySelector('#curves .now'), x = 300 * state.step / (score.steps.length - 1);
  now.setAttribute('x1', x); now.setAttribute('x2', x);
  $('share-selected').textContent = percent(density);
  draw();
}

function buildThreshold() {
  $('selector').hidden = false;
  const last = score.steps.length - 1, at = score.steps.map((_, i) => figures(i, -1));
  const line = name => `<path class="${name}" d="${at.map(
    (f, i) => `${i ? 'L' : 'M'}${300 * i / last} ${82 - 80 * f[name]}`).join('')}"/>`;
  const rule = (x, kind) => `<line x1="${x}" x2="${x}" y1="0" y2="84" class="${kind}"/>`;
  $('curves').innerHTML = [2, 42, 82].map(y => `<line x1="0" x2="300" y1="${y}" y2="${y}"/>`).join('')
    + rule(300 * score.own / last, 'model') + rule(0, 'now') + line('density')
    + (counts.labeled > counts.right.before && has('label') ? line('recall') : '');
  const over = figures(score.own, -1).density, taken = figures(score.own).density;
  if (over !== taken) $('budget').textContent = `A budget kept ${percent(taken)} of the pixels; the threshold alone would select ${percent(over)}.`;
  $('threshold').max = last;
  $('axis').append(...[0, last >> 1, last].map(i => element('span', {textContent: score.steps[i]})));
  $('threshold').oninput = event => { state.step = +event.target.value; state.on.add('selected'); $('layer-selected').checked = true; showThreshold(); };
  $('own').onclick = () => { state.step = score.own; showThreshold(); };
  showThreshold();
}

function buildLayers() {
  const add = (name, text, share, paint) => {
    const box = element('input', {type: 'checkbox', id: `layer-${name}`, checked: state.on.has(name)});
    box.onchange = () => { box.checked ? state.on.add(name) : state.on.delete(name); draw(); };
    $('layers').append(element('li', {}, element('label', {}, box, element('span', {
      className: `swatch ${paint ? '' : 'ramp'}`, style: paint && css(paint)}), element('span', {textContent: text}),
    element('span', {className: 'share', id: `share-${name}`, textContent: share}))));
  };
  if (score) {
    add('selected', 'Selected pixels', '', data.paint.selected);
    add('score', `${score.name}, logarithmic`, '', null);
  }
  if (!has('label')) return;
  const text = has('before') ? {fixed: 'Errors fixed', made: 'Errors made', left: 'Errors left'} : {left: 'Errors'};
  for (const name of Object.keys(text)) {
    const n = counts.change[changes.indexOf(name) + 1];
    add(name, text[name], `${n.toLocaleString('en')} px, ${percent(n / counts.labeled)}`, data.paint[name]);
  }
}

function buildClasses() {
  const iou = (name, k) => (100 * counts.hits[name][k] / (
    counts.seen[name][k] + counts.truth[k] - counts.hits[name][k])).toFixed(1);
  const both = has('before') ? ['before', 'result'] : ['result'];
  $('iou-head').textContent = has('before') ? 'IoU %, before → after' : 'IoU %';
  const buttons = classes.map((name, k) => {
    if (!counts.share[k] && !counts.truth[k]) return null;  // thousands of classes, few in a picture
    const values = both.map(which => iou(which, k)).map(value => value === 'NaN' ? '–' : value);
    const button = element('button', {type: 'button', title: 'Show or hide'}, element('span', {className: 'swatch',
      style: css(colors[k])}), element('span', {className: 'name', textContent: name}),
    element('span', {className: 'share', textContent: percent(counts.share[k] / pixels)}));
    if (has('label')) button.append(element('span', {className: 'share iou', textContent: values.join(' → ')}));
    button.onclick = () => { state.hidden.has(k) ? state.hidden.delete(k) : state.hidden.add(k); show(); };
    $('classes').append(element('li', {}, button));
    return button;
  });
  const show = () => {
    buttons.forEach((button, k) => button && button.setAttribute('aria-pressed', !state.hidden.has(k)));
    draw();
  };
  $('all').onclick = () => { state.hidden.clear(); show(); };
  $('none').onclick = () => { classes.forEach((_, k) => state.hidden.add(k)); show(); };
  show();
}

function buildTime() {
  const entries = Object.entries(data.milliseconds), total = entries.reduce((sum, [, ms]) => sum + ms, 0);
  if (!entries.length) return;
  $('time').hidden = false;
  const row = (name, ms, ...mark) => element('tr', {}, element('td', {}, ...mark, name),
    element('td', {textContent: `${ms.toFixed(1)} ms`}), element('td', {textContent: percent(ms / total, 1)}));
  entries.forEach(([name, ms], i) => {
    const color = css(data.viridis[Math.round(30 + 210 * i / Math.max(entries.length - 1, 1))]);
    const part = element('span', {style: color, title: `${name}: ${ms.toFixed(1)} ms`});
    part.style.flex = ms;
    $('bar').append(part);
    $('stages').append(row(name, ms, element('span', {className: 'swatch', style: color})));
  });
  $('stages').append(Object.assign(row('together', total), {className: 'sum'}));
}

function buildFacts() {
  document.title = `${data.title} – mmsparse`;
  $('title').textContent = data.title;
  $('summary').textContent = [`${W} × ${H}`, `${K} classes`, data.facts.model].filter(Boolean).join(' · ');
  for (const [name, value] of Object.entries(data.facts)) {
    $('facts').append(element('div', {}, element('dt', {textContent: name}), element('dd', {textContent: value})));
  }
  for (const part of document.querySelectorAll('.labeled')) part.hidden = !has('label');
  for (const part of document.querySelectorAll('.refined')) part.hidden = !has('before');
  for (const name of ['before', 'result']) {
    $(`${name}-name`).textContent = titles[name] || '';
    $(`right-${name}`).textContent = percent(counts.right[name] / counts.labeled);
  }
}

function buildViews() {
  for (const which of ['left', 'right']) {
    for (const name of views) $(which).append(new Option(titles[name], name, false, name === state[which]));
    $(which).onchange = event => { state[which] = event.target.value; draw(); };
  }
  $('opacity').oninput = event => {
    state.opacity = event.target.value / 100;
    $('opacity-value').textContent = `${event.target.value} %`;
    draw();
  };
  $('theme').onclick = () => {
    const root = document.documentElement, dark = getComputedStyle(root).colorScheme.startsWith('dark');
    root.dataset.theme = dark ? 'light' : 'dark';
  };
}

async function start() {
  for (const name of Object.keys(data.planes)) planes[name] = await inflate(name);
  picture = await createImageBitmap(new Blob([bytes(data.image)], {type: 'image/jpeg'}));
  counts = count();
  for (const build of [buildFacts, buildViews, buildLayers, buildClasses, buildTime]) build();
  if (score) buildThreshold();
  listen();
  $('status').hidden = true;
  document.body.dataset.ready = 'yes';
}

start().catch(error => {
  $('status').textContent = `This picture cannot be shown (${error.message}). The page needs a browser of 2023 or later.`;
});
